package sagasql_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

func history(c *sagasql.Config) { c.History = true }

type trip struct{ Refuse bool }

var tripDef = saga.Define[trip]("trip", 1,
	saga.Step("hotel", func(context.Context, *saga.Call, *trip) error { return nil }).
		Compensate(func(context.Context, *saga.Call, *trip) error { return nil }),
	saga.Pivot("pay", func(_ context.Context, _ *saga.Call, s *trip) error {
		if s.Refuse {
			return saga.Reject(errors.New("no money"))
		}
		return nil
	}))

// Forty sagas at once, every other one of them refused: each has all its states in its history, none twice.
func TestHistoryHasEachStateOnce(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, store := open(t, dsn(t), history)
			o := saga.Must(saga.New(store, saga.Config{Name: "n", Poll: 50 * time.Millisecond,
				Logger: slog.New(slog.DiscardHandler)}, tripDef))
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- o.Run(ctx) }()
			begun := time.Now()
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					h, err := tripDef.Start(ctx, o, fmt.Sprint("t", i), trip{Refuse: i%2 == 1})
					if err == nil {
						_, err = h.Wait(ctx)
					}
					if failed := (*saga.FailedError)(nil); errors.As(err, &failed) != (i%2 == 1) {
						t.Errorf("t%d: %v", i, err)
					}
				})
			}
			wg.Wait()
			_ = db.InTx(ctx, func(ctx context.Context) error {
				if _, err := tripDef.Start(ctx, o, "undone", trip{}); err != nil {
					t.Error(err)
				}
				return errors.New("rolled back")
			})
			stop()
			if err := <-ran; err != nil {
				t.Error(err)
			}
			for i := range 40 {
				r, err := store.Get(t.Context(), fmt.Sprint("t", i))
				if err != nil {
					t.Fatal(err)
				}
				list, err := store.History(t.Context(), r.ID)
				if err != nil || len(list) != int(r.Revision) {
					t.Fatalf("%s: %d states of %d, %v", r.ID, len(list), r.Revision, err)
				}
				var statuses []saga.Status
				for j, c := range list {
					if c.Revision != int64(j+1) || c.At.Before(begun.Add(-time.Minute)) || c.At.After(time.Now().Add(time.Minute)) ||
						len(c.Steps) != 2 {
						t.Errorf("%s: state %d is %+v", r.ID, j, c)
					}
					statuses = append(statuses, c.Status)
				}
				last := list[len(list)-1]
				if last.Status != r.Status || last.Cause != r.Cause || last.Fence != r.Fence ||
					last.Steps[0].Status != r.Steps[0].Status {
					t.Errorf("%s: the last state %+v is not the saga %+v", r.ID, last, r)
				}
				if turned := slices.Contains(statuses, saga.Compensating); turned != (i%2 == 1) {
					t.Errorf("%s went through %v", r.ID, statuses)
				}
			}
			if list, err := store.History(t.Context(), "undone"); err != nil || len(list) != 0 {
				t.Errorf("a saga that was rolled back has a history: %v, %v", list, err)
			}
		})
	}
}

func TestPruneRemovesSagasWithTheirHistory(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, store := open(t, dsn(t), history)
			var wg sync.WaitGroup
			for i := range 1000 { // more than are pruned at once
				wg.Go(func() {
					r := saga.Record{ID: fmt.Sprint("many-", i), Name: "trip", Version: 1, Status: saga.Completed, State: []byte("{}"),
						WakeAt: time.Now()}
					if _, _, err := store.Insert(t.Context(), r); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for i, status := range []saga.Status{saga.Completed, saga.Compensated, saga.Stuck, saga.Running, saga.Compensating} {
				for j := range 3 {
					r := saga.Record{ID: fmt.Sprint(i, "-", j), Name: "trip", Version: 1, Status: status, State: []byte("{}"),
						WakeAt: time.Now()}
					if _, _, err := store.Insert(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n, err := prune(t, store, time.Now().Add(-time.Hour)); n != 0 || err != nil {
				t.Errorf("%d sagas were old, %v", n, err)
			}
			if n, err := prune(t, store, time.Now().Add(time.Hour)); n != 1006 || err != nil {
				t.Errorf("%d sagas were pruned, %v", n, err)
			}
			left, err := store.List(t.Context(), saga.Filter{})
			if err != nil || len(left) != 9 || left[0].ID != "2-0" {
				t.Errorf("left: %v, %v", left, err)
			}
			for id, want := range map[string]int{"0-0": 0, "1-2": 0, "2-0": 1} {
				if list, err := store.History(t.Context(), id); err != nil || len(list) != want {
					t.Errorf("%s has a history of %d, %v", id, len(list), err)
				}
			}
		})
	}
}

func prune(t *testing.T, store saga.Store, before time.Time) (int64, error) {
	t.Helper()
	def := saga.Define("prune", 1, saga.Step("a", func(context.Context, *saga.Call, *struct{}) error { return nil }))
	return saga.Must(saga.New(store, saga.Config{}, def)).Prune(t.Context(), before)
}
