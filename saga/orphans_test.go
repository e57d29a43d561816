package saga_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// deaf is a store that executes calls and loses their answers.
type deaf struct {
	saga.Store
	inserts, claims, saves atomic.Bool
}

func (d *deaf) Insert(ctx context.Context, r saga.Record) (saga.Record, bool, error) {
	stored, inserted, err := d.Store.Insert(ctx, r)
	if d.inserts.CompareAndSwap(true, false) {
		return r, false, errDown
	}
	return stored, inserted, err
}

func (d *deaf) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	list, err := d.Store.Claim(ctx, node, kinds, limit)
	if len(list) > 0 && d.claims.CompareAndSwap(true, false) {
		return nil, errDown
	}
	return list, err
}

// Save does not even do it.
func (d *deaf) Save(ctx context.Context, r saga.Record) error {
	if d.saves.Load() {
		return errDown
	}
	return d.Store.Save(ctx, r)
}

// A saga that an orchestrator owns and does not know of is run soon, by it or another, also while it lives on: the
// answer to its first write, to the claim, or to what gives it back was lost.
func TestOrphansAreRunAgain(t *testing.T) {
	for name, c := range map[string]func(t *testing.T, store *deaf, def *saga.Def[trip], o *saga.Orchestrator){
		"the start's answer is lost": func(t *testing.T, store *deaf, def *saga.Def[trip], o *saga.Orchestrator) {
			start(t, o)
			synctest.Wait()
			store.inserts.Store(true)
			if _, err := def.Start(t.Context(), o, "t1", trip{}); !errors.Is(err, errDown) {
				t.Fatal(err)
			}
		},
		"the claim's answer is lost": func(t *testing.T, store *deaf, def *saga.Def[trip], o *saga.Orchestrator) {
			if _, err := def.Start(t.Context(), o, "t1", trip{}); err != nil { // o does not run yet
				t.Fatal(err)
			}
			store.claims.Store(true)
			start(t, o)
		},
		"it cannot be given back": func(t *testing.T, store *deaf, def *saga.Def[trip], o *saga.Orchestrator) {
			start(t, o)
			synctest.Wait()
			if _, err := def.Start(t.Context(), o, "t1", trip{Car: "late"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			store.saves.Store(true)
			time.Sleep(8 * time.Second) // less than a lease
			store.saves.Store(false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				late := true
				car := func(_ context.Context, _ *saga.Call, s *trip) error {
					w.note("car")
					if s.Car == "late" && late {
						late = false
						time.Sleep(time.Second)
						return errBoom
					}
					return nil
				}
				def := saga.Define[trip]("trip", 1, saga.Step("car", car).Retry(3, saga.Exponential(10*time.Second,
					10*time.Second)), saga.Pivot("pay", w.do("pay")))
				store := &deaf{Store: sagamem.New()}
				o := saga.Must(saga.New(store, saga.Config{Logger: quiet}, def))
				c(t, store, def, o)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := def.Handle(o, "t1").Wait(ctx); err != nil {
					t.Error(err)
				}
				if r := status(t, o, "t1"); r.Status != saga.Completed {
					t.Errorf("%s, owner %q, fence %d", r.Status, r.Owner, r.Fence)
				}
			})
		})
	}
}

// While a step runs under the old identity its lease is kept; when Run ends meanwhile that step is drained as any
// other, and what the identity owned is free at once.
func TestOrphansAndDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		first := true
		car := func(ctx context.Context, c *saga.Call, s *trip) error {
			if s.Car == "slow" && first {
				first = false
				<-ctx.Done()
				if cause := context.Cause(ctx); !errors.Is(cause, saga.ErrDraining) {
					t.Errorf("cut off: %v", cause)
				}
				return ctx.Err()
			}
			w.note("car of %s under fence %d", s.Car, c.Fence())
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("car", car).Timeout(time.Hour), saga.Pivot("pay", w.do("pay")))
		drainOrphans(t, def)
	})
}

// drainOrphans ends an orchestrator that owns sagas it does not run.
func drainOrphans(t *testing.T, def *saga.Def[trip]) {
	t.Helper()
	store := &deaf{Store: sagamem.New()}
	a := saga.Must(saga.New(store, saga.Config{Logger: quiet}, def))
	stop := start(t, a)
	if _, err := def.Start(t.Context(), a, "t1", trip{Car: "slow"}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	store.inserts.Store(true)
	if _, err := def.Start(t.Context(), a, "t2", trip{Car: "lost"}); !errors.Is(err, errDown) {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Minute) // the step's context lives on, many leases later
	if r := status(t, a, "t1"); r.Fence != 1 {
		t.Errorf("the running saga was taken over under fence %d", r.Fence)
	}
	stop()
	b := saga.Must(saga.New(store, saga.Config{Logger: quiet}, def))
	start(t, b)
	began := time.Now()
	for _, id := range []string{"t1", "t2"} {
		if _, err := def.Handle(b, id).Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("what the identity owned was free after %v", took)
	}
}
