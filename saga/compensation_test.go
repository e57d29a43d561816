package saga_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/saga"
)

func TestRejectedCompensatesInReverse(t *testing.T) {
	w := &world{}
	def := saga.Define[trip]("trip", 1,
		saga.Step("check", w.do("check")),
		saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
		saga.Step("car", w.do("car")).Compensate(w.undo("car")),
		saga.Step("flight", w.fail("flight", saga.Reject(errBoom))).Compensate(w.undo("flight")))
	run(t, def, func(t *testing.T, o *saga.Orchestrator, s trip, err error) {
		w.saw(t, "check", "hotel", "car", "flight fails", "undo car", "undo hotel")
		var f *saga.FailedError
		if !errors.Is(err, saga.ErrCompensated) || errors.Is(err, saga.ErrStuck) || !errors.As(err, &f) ||
			f.Step != "flight" || f.Cause != "boom" {
			t.Errorf("Wait: %v", err)
		}
		if slices.Contains(s.Log, "never kept") {
			t.Error("a failed handler's change was kept")
		}
		var got []saga.StepStatus
		for _, st := range status(t, o, "t1").Steps {
			got = append(got, st.Status)
		}
		if d := cmp.Diff([]saga.StepStatus{saga.StepCompleted, saga.StepCompensated, saga.StepCompensated, saga.StepFailed},
			got); d != "" {
			t.Errorf("steps (-want +got):\n%s", d)
		}
	})
}

func TestInDoubtIsCompensatedToo(t *testing.T) {
	for name, h := range map[string]func(*world) saga.Handler[trip]{
		"error": func(w *world) saga.Handler[trip] { return w.fail("car", errBoom) },
		"panic": func(w *world) saga.Handler[trip] {
			return func(context.Context, *saga.Call, *trip) error { w.note("car fails"); panic("boom") }
		},
		"goexit": func(w *world) saga.Handler[trip] {
			return func(context.Context, *saga.Call, *trip) error { w.note("car fails"); runtime.Goexit(); return nil }
		},
		"timeout": func(w *world) saga.Handler[trip] {
			return func(ctx context.Context, _ *saga.Call, _ *trip) error {
				w.note("car fails")
				<-ctx.Done()
				return saga.Reject(nil) // what a handler says after its time does not matter: nil is no rejection
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{}
			fails := h(w)
			if name == "timeout" {
				inner := fails
				fails = func(ctx context.Context, c *saga.Call, s *trip) error { _ = inner(ctx, c, s); return ctx.Err() }
			}
			def := saga.Define[trip]("trip", 1,
				saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
				saga.Step("car", fails).Compensate(w.undo("car")).Timeout(time.Second).Retry(2,
					saga.Exponential(time.Second, time.Second)))
			run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ trip, err error) {
				w.saw(t, "hotel", "car fails", "car fails", "undo car?", "undo hotel")
				if !errors.Is(err, saga.ErrCompensated) {
					t.Errorf("Wait: %v", err)
				}
			})
		})
	}
}

func TestRejectedAfterDoubtIsCompensated(t *testing.T) {
	w := &world{}
	n := 0
	car := func(context.Context, *saga.Call, *trip) error {
		if n++; n == 1 {
			return errBoom
		}
		return saga.Reject(errBoom)
	}
	def := saga.Define[trip]("trip", 1, saga.Step("car", car).Compensate(w.undo("car")))
	run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ trip, _ error) { w.saw(t, "undo car?") })
}

func TestStepsAfterThePivotAreNeverCompensated(t *testing.T) {
	t.Run("rejected compensates", func(t *testing.T) {
		w := &world{}
		def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
			saga.Pivot("pay", w.fail("pay", saga.Reject(errBoom))))
		run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ trip, err error) {
			w.saw(t, "hotel", "pay fails", "undo hotel")
			if !errors.Is(err, saga.ErrCompensated) {
				t.Error(err)
			}
		})
	})
	t.Run("in doubt is stuck, and an operator goes on", func(t *testing.T) {
		w := &world{}
		broken := true
		pay := func(_ context.Context, c *saga.Call, _ *trip) error {
			w.note("pay %d", c.Attempt())
			if broken {
				return errBoom
			}
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
			saga.Pivot("pay", pay).Retry(2, saga.Exponential(time.Second, time.Second)))
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			if !errors.Is(err, saga.ErrStuck) {
				t.Fatal(err)
			}
			if err := o.Cancel(t.Context(), "t1"); !errors.Is(err, saga.ErrPastPivot) {
				t.Errorf("Cancel: %v, want ErrPastPivot", err)
			}
			if l, err := o.Stuck(t.Context(), saga.Filter{}); err != nil || len(l) != 1 {
				t.Errorf("Stuck: %v, %v", l, err)
			}
			broken = false
			if err := o.Retry(t.Context(), "t1", "ana"); err != nil {
				t.Fatal(err)
			}
			if _, err := def.Handle(o, "t1").Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.saw(t, "hotel", "pay 1", "pay 2", "pay 1")
			if a := status(t, o, "t1").Audit; len(a) != 1 || a[0].Actor != "ana" || a[0].Action != "retry" {
				t.Errorf("audit %+v", a)
			}
			if err := o.Retry(t.Context(), "t1", "ana"); !errors.Is(err, saga.ErrNotStuck) {
				t.Errorf("Retry of a completed saga: %v", err)
			}
		})
	})
	t.Run("a retriable step is retried, never compensated", func(t *testing.T) {
		w := &world{}
		n := 0
		mail := func(context.Context, *saga.Call, *trip) error {
			if n++; n < 5 {
				return errBoom
			}
			w.note("mail")
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
			saga.Pivot("pay", w.do("pay")), saga.Retriable("mail", mail))
		run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ trip, err error) {
			w.saw(t, "hotel", "pay", "mail")
			if err != nil {
				t.Error(err)
			}
		})
	})
}

func TestFailingCompensationBecomesStuck(t *testing.T) {
	build := func(w *world, broken *bool) *saga.Def[trip] {
		undoCar := func(ctx context.Context, c *saga.Call, s *trip) error {
			if *broken {
				w.note("undo car fails")
				return errBoom
			}
			return w.undo("car")(ctx, c, s)
		}
		return saga.Define[trip]("trip", 1,
			saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
			saga.Step("car", w.do("car")).Compensate(undoCar).CompensateRetry(2, saga.Exponential(5*time.Second, 5*time.Second)),
			saga.Step("flight", w.fail("flight", saga.Reject(errBoom))))
	}
	t.Run("the others run, the saga is stuck, retry mends it", func(t *testing.T) {
		w, broken := &world{}, true
		def := build(w, &broken)
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			w.saw(t, "hotel", "car", "flight fails", "undo car fails", "undo car fails", "undo hotel")
			var f *saga.FailedError
			if !errors.Is(err, saga.ErrStuck) || !errors.As(err, &f) || f.Step != "flight" || f.Compensations["car"] != "boom" {
				t.Fatalf("Wait: %v", err)
			}
			broken = false
			if err := o.Retry(t.Context(), "t1", "ana"); err != nil {
				t.Fatal(err)
			}
			if _, err := def.Handle(o, "t1").Wait(t.Context()); !errors.Is(err, saga.ErrCompensated) {
				t.Errorf("after Retry: %v", err)
			}
			w.saw(t, "hotel", "car", "flight fails", "undo car fails", "undo car fails", "undo hotel", "undo car")
		})
	})
	t.Run("skip is audited", func(t *testing.T) {
		w, broken := &world{}, true
		def := build(w, &broken)
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			if err := o.Skip(t.Context(), "t1", "hotel", "ana", "by hand"); err == nil {
				t.Error("a step whose compensation succeeded was skipped")
			}
			if err := o.Skip(t.Context(), "t1", "car", "ana", ""); err == nil {
				t.Error("a skip without a reason")
			}
			if err := o.Skip(t.Context(), "t1", "car", "ana", "by hand"); err != nil {
				t.Fatal(err)
			}
			if _, err := def.Handle(o, "t1").Wait(t.Context()); !errors.Is(err, saga.ErrCompensated) {
				t.Errorf("after Skip: %v", err)
			}
			if a := status(t, o, "t1").Audit; len(a) != 1 || a[0].Step != "car" || a[0].Reason != "by hand" {
				t.Errorf("audit %+v", a)
			}
		})
	})
	t.Run("StopOnFailure", func(t *testing.T) {
		w, broken := &world{}, true
		def := build(w, &broken).StopOnFailure()
		run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ trip, err error) {
			w.saw(t, "hotel", "car", "flight fails", "undo car fails", "undo car fails")
			if !errors.Is(err, saga.ErrStuck) {
				t.Error(err)
			}
		})
	})
}
