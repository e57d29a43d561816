package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/memevents"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

// A read model is rebuilt under another name while events are appended and the old one serves; then readers are turned
// to it. What they see never goes back, nothing is missing or counted twice, and no event is published again.
func TestReplaceBesideAppends(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			reported := 0
			var mu sync.Mutex
			db, s, err := open(t.Context(), dsn(t), sqlevents.Config{Poll: 5 * time.Millisecond,
				OnAppend: func(_ context.Context, events []eventstore.Recorded) error {
					mu.Lock()
					defer mu.Unlock()
					reported += len(events)
					return nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			event := eventstore.Event{Type: "x"}
			const before, beside = 200, 200
			for range before / 10 {
				if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, event, event, event, event, event, event, event,
					event, event, event); err != nil {
					t.Fatal(err)
				}
			}
			models := map[string]*eventstore.Projector{}
			for _, model := range []string{"old", "new"} {
				if models[model], err = projector(db, s, model, func(eventstore.Recorded) {}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.Querier(t.Context()).Exec(t.Context(), "INSERT INTO serving VALUES (1, 'old')"); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var running, writing sync.WaitGroup
			running.Go(func() { _ = models["old"].Run(ctx) })
			writing.Go(func() {
				for range beside {
					if _, err := s.Append(t.Context(), "b", eventstore.AnyVersion, event); err != nil {
						t.Error(err)
						return
					}
				}
			})
			running.Go(func() { // a reader
				for last := int64(0); ctx.Err() == nil; time.Sleep(time.Millisecond) {
					var n int64
					err := db.Querier(t.Context()).QueryRow(t.Context(),
						"SELECT coalesce(sum(cents), 0) FROM totals WHERE model = (SELECT model FROM serving)").Scan(&n)
					if err != nil || n < last {
						t.Errorf("a reader saw %d after %d (%v)", n, last, err)
						return
					}
					last = n
				}
			})
			err = models["new"].Replace(t.Context(), "old", func(ctx context.Context) error {
				_, err := db.Querier(ctx).Exec(ctx, "UPDATE serving SET model = 'new'")
				return err
			})
			if err != nil {
				t.Error(err)
			}
			running.Go(func() { _ = models["new"].Run(ctx) })
			writing.Wait()
			for n := int64(0); n < before+beside && !t.Failed(); time.Sleep(time.Millisecond) {
				if n, err = s.Lag(t.Context(), ""); err != nil {
					t.Error(err)
				}
			}
			for model, p := range models {
				for lag := int64(1); lag > 0 && !t.Failed(); time.Sleep(2 * time.Millisecond) {
					if lag, err = p.Lag(t.Context()); err != nil {
						t.Error(err)
					}
				}
				var n int64
				err := db.Querier(t.Context()).QueryRow(t.Context(), "SELECT sum(cents) FROM totals WHERE model = $1",
					model).Scan(&n)
				if err != nil || n != before+beside {
					t.Errorf("%s: %d events, want %d (%v)", model, n, before+beside, err)
				}
			}
			stop()
			running.Wait()
			if mu.Lock(); reported != before+beside {
				t.Errorf("reported %d events, want %d: a rebuild must not tell again", reported, before+beside)
			}
			mu.Unlock()
		})
	}
}

// change is not made when the rebuild fails, and Replace begins anew when old moves at that moment.
func TestReplaceFails(t *testing.T) {
	s := memevents.New(memevents.Config{})
	if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := s.MoveCheckpoint(t.Context(), "old", "", "1"); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	fail := boom
	p, err := eventstore.NewProjector(s, plain{}, func(context.Context, eventstore.Recorded) error { return fail },
		eventstore.ProjectorConfig{Name: "new"})
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	change := func(context.Context) error { changed++; return nil }
	if err := p.Replace(t.Context(), "old", change); !errors.Is(err, boom) || changed != 0 {
		t.Errorf("a rebuild that fails: %v, changed %d times", err, changed)
	}
	fail = nil
	err = p.Replace(t.Context(), "old", func(ctx context.Context) error {
		if changed++; changed == 1 {
			return fmt.Errorf("as if: %w", eventstore.ErrCheckpoint)
		}
		return nil
	})
	if err != nil || changed != 2 {
		t.Errorf("%v after %d attempts, want 2", err, changed)
	}
	for _, old := range []string{"", "new"} {
		if err := p.Replace(t.Context(), old, change); err == nil {
			t.Errorf("the replacement of %q was accepted", old)
		}
	}
}

// racing lets another come in when the checkpoint of old is looked at for the first time, and notes whether that is
// held.
type racing struct {
	*memevents.Store
	meanwhile func()
	held      bool
}

func (r *racing) Checkpoint(ctx context.Context, projection string) (string, error) {
	if fn := r.meanwhile; projection == "old" && fn != nil {
		r.meanwhile = nil
		fn()
	}
	return r.Store.Checkpoint(ctx, projection)
}

func (r *racing) MoveCheckpoint(ctx context.Context, projection, from, to string) error {
	r.held = r.held || projection == "old" && from == to
	return r.Store.MoveCheckpoint(ctx, projection, from, to)
}

// Old gets ahead when the rebuild has just caught up: it is held, and the rebuild catches up again before the change.
func TestReplaceIsNotBehind(t *testing.T) {
	s := &racing{Store: memevents.New(memevents.Config{})}
	s.meanwhile = func() {
		if _, err := s.Append(t.Context(), "a", eventstore.AnyVersion, eventstore.Event{Type: "x"}); err != nil {
			t.Error(err)
		}
		if err := s.Store.MoveCheckpoint(t.Context(), "old", "", "1"); err != nil {
			t.Error(err)
		}
	}
	applied := 0
	p, err := eventstore.NewProjector(s, plain{}, func(context.Context, eventstore.Recorded) error {
		applied++
		return nil
	}, eventstore.ProjectorConfig{Name: "new"})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Replace(t.Context(), "old", func(context.Context) error {
		if applied != 1 || !s.held {
			t.Errorf("readers are turned with %d events applied, want 1, and old held: %v", applied, s.held)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
