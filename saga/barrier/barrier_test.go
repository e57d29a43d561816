package barrier_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/saga/barrier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func each(t *testing.T, test func(t *testing.T, db *sqldb.DB, b *barrier.Barrier)) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{Synchronous: "NORMAL"}))
			defer db.Close()
			b := barrier.Must(barrier.New(db, barrier.Config{}))
			if err := b.EnsureSchema(t.Context()); err != nil {
				t.Fatal(err)
			}
			test(t, db, b)
		})
	}
}

func TestDoRunsOncePerStep(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, b *barrier.Barrier) {
		ran := map[string]int{}
		do := func(key string, result error) error {
			return db.InTx(t.Context(), func(ctx context.Context) error {
				return b.Do(ctx, key, func(context.Context) error { ran[key]++; return result })
			})
		}
		boom := errors.New("boom")
		for _, step := range []struct {
			what, key string
			result    error
			want      error
			ran       int
		}{
			{"the action", "s1/pay/do", nil, nil, 1},
			{"the action again", "s1/pay/do", nil, nil, 1},
			{"its compensation", "s1/pay/undo", nil, nil, 1},
			{"its compensation again", "s1/pay/undo", nil, nil, 1},
			{"the action after its compensation is a duplicate", "s1/pay/do", nil, nil, 1},
			{"a compensation without an action", "s2/pay/undo", nil, nil, 0},
			{"the action that comes too late", "s2/pay/do", nil, barrier.ErrTooLate, 0},
			{"that compensation again", "s2/pay/undo", nil, nil, 0},
			{"an action that fails", "s3/pay/do", boom, boom, 1},
			{"is not marked", "s3/pay/do", nil, nil, 2},
			{"a compensation that fails", "s3/pay/undo", boom, boom, 1},
			{"is not marked either", "s3/pay/undo", nil, nil, 2},
			{"no key", "s3", nil, barrier.ErrKey, 0},
			{"another ending", "s3/pay/redo", nil, barrier.ErrKey, 0},
		} {
			if err := do(step.key, step.result); !errors.Is(err, step.want) {
				t.Errorf("%s: %v, want %v", step.what, err, step.want)
			}
			if ran[step.key] != step.ran {
				t.Errorf("%s: fn has run %d times, want %d", step.what, ran[step.key], step.ran)
			}
		}
		if err := b.Do(t.Context(), "s4/pay/do", nil); !errors.Is(err, sqldb.ErrNoTx) {
			t.Errorf("outside a transaction: %v", err)
		}
	})
}

func TestConcurrentAttemptsRunOnce(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, b *barrier.Barrier) {
		for range 20 {
			var did, undid, late atomic.Int32
			var wg sync.WaitGroup
			key := "s" + string('a'+did.Load()) + t.Name()
			for i := range 8 {
				wg.Go(func() {
					op, n := "/x/do", &did
					if i%2 == 1 {
						op, n = "/x/undo", &undid
					}
					err := db.InTx(t.Context(), func(ctx context.Context) error {
						return b.Do(ctx, key+op, func(context.Context) error { n.Add(1); return nil })
					})
					if errors.Is(err, barrier.ErrTooLate) {
						late.Add(1)
					} else if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if did.Load() != undid.Load() || did.Load() > 1 {
				t.Fatalf("did %d times, undid %d times, %d came too late", did.Load(), undid.Load(), late.Load())
			}
			if _, err := db.Querier(t.Context()).Exec(t.Context(), "DELETE FROM sillar_barrier"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestResultIsReturnedAgain(t *testing.T) {
	each(t, func(t *testing.T, db *sqldb.DB, b *barrier.Barrier) {
		type made struct{ ID int64 }
		ran := int64(0)
		do := func(key string) (m made, err error) {
			err = db.InTx(t.Context(), func(ctx context.Context) error {
				m, err = barrier.Result(ctx, b, key, func(context.Context) (made, error) {
					ran++
					return made{9007199254740993 + ran}, nil
				})
				return err
			})
			return m, err
		}
		first, err := do("s1/pay/do")
		again, err2 := do("s1/pay/do")
		if err != nil || err2 != nil || ran != 1 || first != (made{9007199254740994}) || again != first {
			t.Errorf("%v, %v, then %v, %v after %d runs, want one run and its result twice", first, err, again, err2, ran)
		}
		if m, err := do("s2/pay/undo"); err != nil || m != (made{}) || ran != 1 {
			t.Errorf("a compensation without an action: %v, %v", m, err)
		}
		if _, err := do("s2/pay/do"); !errors.Is(err, barrier.ErrTooLate) {
			t.Errorf("the action that comes too late: %v", err)
		}
		if m, err := do("s1/pay/undo"); err != nil || m == (made{}) || ran != 2 {
			t.Errorf("the compensation: %v, %v", m, err)
		}
		boom := errors.New("boom")
		err = db.InTx(t.Context(), func(ctx context.Context) error {
			_, err := barrier.Result(ctx, b, "s3/pay/do", func(context.Context) (made, error) { return made{1}, boom })
			return err
		})
		if !errors.Is(err, boom) {
			t.Errorf("an action that fails: %v", err)
		}
		if n, err := b.Prune(t.Context(), time.Now().Add(time.Hour)); n != 4 || err != nil {
			t.Errorf("Prune: %d, %v, want 4 marks", n, err)
		}
		if n, err := db.Querier(t.Context()).Exec(t.Context(), "DELETE FROM sillar_barrier_results"); n != 0 || err != nil {
			t.Errorf("%d results are left, %v", n, err)
		}
	})
}
