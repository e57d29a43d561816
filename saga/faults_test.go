package saga_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// flaky is a store that a node may be cut off from, or that loses acknowledgements.
type flaky struct {
	saga.Store
	down    atomic.Bool
	loseAck atomic.Int32 // the n-th Save from now on is done, but its answer is lost
}

var errDown = errors.New("the store does not answer")

func (f *flaky) Save(ctx context.Context, r saga.Record) error {
	if f.down.Load() {
		return errDown
	}
	err := f.Store.Save(ctx, r)
	if err == nil && f.loseAck.Add(-1) == 0 {
		return errDown
	}
	return err
}

func (f *flaky) Heartbeat(ctx context.Context, node string, d time.Duration) error {
	if f.down.Load() {
		return errDown
	}
	return f.Store.Heartbeat(ctx, node, d)
}

func (f *flaky) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.Store.Claim(ctx, node, kinds, limit)
}

// A node is cut off in the middle of a step. Another takes over after the lease, in doubt and under a higher fence; the
// zombie's step sees its context end, and what it does afterwards is refused.
func TestTakeoverFencesTheLostOrchestrator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		var zombie *flaky
		block := true
		car := func(ctx context.Context, c *saga.Call, _ *trip) error {
			w.note("car under fence %d, attempt %d", c.Fence(), c.Attempt())
			if block {
				block = false
				zombie.down.Store(true)
				<-ctx.Done()
				w.note("zombie ends: %v", context.Cause(ctx))
				if err := c.Checkpoint(context.WithoutCancel(ctx)); err == nil {
					t.Error("the zombie could write")
				}
				return ctx.Err()
			}
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")), saga.Step("car", car).Timeout(time.Hour),
			saga.Pivot("pay", w.do("pay")))
		mem := sagamem.New()
		zombie = &flaky{Store: mem}
		a := saga.Must(saga.New(zombie, saga.Config{Logger: quiet, Lease: 8 * time.Second}, def))
		b := saga.Must(saga.New(mem, saga.Config{Logger: quiet, Lease: 8 * time.Second}, def))
		start(t, a)
		if _, err := def.Start(t.Context(), a, "t1", trip{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start(t, b)
		begin := time.Now()
		if _, err := def.Handle(b, "t1").Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("taken over after %v, want at most lease and poll", took)
		}
		zombie.down.Store(false)
		time.Sleep(time.Minute)
		w.saw(t, "hotel", "car under fence 1, attempt 1", "zombie ends: saga: the orchestrator lost its lease",
			"car under fence 2, attempt 2", "pay")
	})
}

func TestLostAcknowledgementRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")), saga.Step("car", w.do("car")),
			saga.Pivot("pay", w.do("pay")))
		store := &flaky{Store: sagamem.New()}
		o := saga.Must(saga.New(store, saga.Config{Logger: quiet}, def))
		start(t, o)
		store.loseAck.Store(2)
		h, err := def.Start(t.Context(), o, "t1", trip{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.saw(t, "hotel", "car", "pay")
		if r := status(t, o, "t1"); r.Fence != 1 || r.Revision != 4 {
			t.Errorf("fence %d, revision %d: the lost answer was not recognised", r.Fence, r.Revision)
		}
	})
}

func TestDrainGivesSagasBack(t *testing.T) {
	for name, slow := range map[string]time.Duration{"a running step ends": 5 * time.Second,
		"a step that takes too long is cut off": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				first := true
				car := func(ctx context.Context, c *saga.Call, _ *trip) error {
					d := slow
					if !first {
						d = 0
					}
					first = false
					select {
					case <-time.After(d):
						w.note("car")
						return nil
					case <-ctx.Done():
						w.note("cut off: %v", context.Cause(ctx))
						return ctx.Err()
					}
				}
				def := saga.Define[trip]("trip", 1, saga.Step("car", car).Timeout(2*time.Hour).Retry(1, saga.Exponential(1, 1)),
					saga.Pivot("pay", w.do("pay")))
				mem := sagamem.New()
				a := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def))
				stop := start(t, a)
				if _, err := def.Start(t.Context(), a, "t1", trip{}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				begin := time.Now()
				stop()
				if took := time.Since(begin); took > 21*time.Second {
					t.Errorf("the drain took %v", took)
				}
				if r := status(t, a, "t1"); r.Owner != "" || r.Status != saga.Running {
					t.Errorf("after the drain the owner is %q, the status %s", r.Owner, r.Status)
				}
				b := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def))
				start(t, b)
				if _, err := def.Handle(b, "t1").Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				if slow < time.Minute {
					w.saw(t, "car", "pay")
				} else {
					w.saw(t, "cut off: saga: the orchestrator is shutting down", "car", "pay")
				}
			})
		})
	}
}

func TestRetryOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		car := func(ctx context.Context, c *saga.Call, s *trip) error {
			w.note("attempt %d sees %q", c.Attempt(), s.Car)
			if c.Attempt() < 3 {
				s.Car = "half"
				if err := c.Checkpoint(ctx); err != nil {
					t.Error(err)
				}
				return errBoom
			}
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("car", car).Retry(5, saga.Exponential(time.Hour, time.Hour)))
		mem := sagamem.New()
		a := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def))
		stop := start(t, a)
		if _, err := def.Start(t.Context(), a, "t1", trip{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		start(t, saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def)))
		if _, err := def.Handle(a, "t1").Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.saw(t, `attempt 1 sees ""`, `attempt 2 sees "half"`, `attempt 3 sees "half"`)
	})
}

func TestSagasOfAnotherShapeAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		mem := sagamem.New()
		wait := saga.Await("go", func(context.Context, *saga.Call, *trip, int) error { return nil })
		v1 := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")), wait)
		other := saga.Define[trip]("trip", 1, saga.Step("inn", w.do("inn")), wait)
		v2 := saga.Define[trip]("trip", 2, saga.Step("inn", w.do("inn")), wait)
		a := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, v1))
		if _, err := v1.Start(t.Context(), a, "t1", trip{}); err != nil { // no orchestrator runs yet
			t.Fatal(err)
		}
		if err := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, other)).Run(t.Context()); !errors.Is(err,
			saga.ErrShape) {
			t.Errorf("Run with another shape: %v, want ErrShape", err)
		}
		start(t, saga.Must(saga.New(mem, saga.Config{Logger: quiet}, v2)))
		time.Sleep(time.Minute)
		if r := status(t, a, "t1"); r.Fence != 0 {
			t.Errorf("a node of version 2 touched a saga of version 1: %+v", r)
		}
		start(t, a)
		time.Sleep(time.Minute)
		w.saw(t, "hotel")
		if _, err := v2.Start(t.Context(), a, "t2", trip{}); !errors.Is(err, saga.ErrUnknown) {
			t.Errorf("Start of an unregistered definition: %v", err)
		}
	})
}

func TestSagaResumesFromItsStep(t *testing.T) {
	for name, c := range map[string]struct {
		v2    func(w *world) *saga.Def[trip]
		saw   []string
		ended bool
	}{
		"steps added and removed ahead": {func(w *world) *saga.Def[trip] {
			return saga.Define[trip]("trip", 2, saga.Step("check", w.do("check")),
				saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")), wait(w),
				saga.Pivot("pay", w.do("pay")), saga.Retriable("mail", w.do("mail")))
		}, []string{"hotel", "signalled", "pay", "mail"}, true},
		"compensated by the new version": {func(w *world) *saga.Def[trip] {
			return saga.Define[trip]("trip", 2, saga.Step("check", w.do("check")).Compensate(w.undo("check")),
				saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")), wait(w),
				saga.Pivot("pay", w.fail("pay", saga.Reject(errBoom))))
		}, []string{"hotel", "signalled", "pay fails", "undo hotel"}, true},
		"a step that has run is gone": {func(w *world) *saga.Def[trip] {
			return saga.Define[trip]("trip", 2, wait(w), saga.Pivot("pay", w.do("pay")))
		}, []string{"hotel"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				mem := sagamem.New()
				v1 := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")), wait(w),
					saga.Step("car", w.do("car")), saga.Pivot("pay", w.do("pay")))
				a := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, v1))
				stop := start(t, a)
				if _, err := v1.Start(t.Context(), a, "t1", trip{}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				stop()
				v2 := c.v2(w).ResumesFrom(1)
				b := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, v2))
				start(t, b)
				if err := v2.Signal(t.Context(), b, "t1", "go", 1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				w.saw(t, c.saw...)
				if r := status(t, b, "t1"); r.Status.Ended() != c.ended || c.ended != (r.Version == 2) {
					t.Errorf("version %d, %s", r.Version, r.Status)
				}
			})
		})
	}
	w := &world{}
	if _, err := saga.New(sagamem.New(), saga.Config{},
		saga.Define[trip]("trip", 2, saga.Pivot("pay", w.do("pay"))).ResumesFrom(3)); !errors.Is(err, saga.ErrDefinition) {
		t.Errorf("resuming from a newer version: %v", err)
	}
}

func wait(w *world) *saga.AwaitDef[trip] {
	return saga.Await("go", func(context.Context, *saga.Call, *trip, int) error { w.note("signalled"); return nil })
}

func TestManySagasFewPlaces(t *testing.T) {
	w := &world{}
	def := saga.Define[trip]("trip", 1, saga.Step("hotel", func(context.Context, *saga.Call, *trip) error {
		time.Sleep(100 * time.Millisecond)
		w.note("x")
		return nil
	}), saga.Pivot("pay", w.do("x")))
	bubble(t, saga.Config{Concurrency: 4}, func(t *testing.T, o *saga.Orchestrator) {
		var hs []*saga.Handle[trip]
		for i := range 200 {
			h, err := def.Start(t.Context(), o, string(rune('a'+i%26))+time.Duration(i).String(), trip{})
			if err != nil {
				t.Fatal(err)
			}
			hs = append(hs, h)
		}
		begin := time.Now()
		for _, h := range hs {
			if _, err := h.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("200 sagas of 0.1 s in 4 places took %v", took)
		}
		if d := cmp.Diff(400, len(w.log)); d != "" {
			t.Error(d)
		}
	}, def)
}
