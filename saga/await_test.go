package saga_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

type approval struct{ By string }

func TestAwaitEndsBySignalOrTimeout(t *testing.T) {
	build := func(w *world) *saga.Def[trip] {
		return saga.Define[trip]("trip", 1,
			saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
			saga.Await("approval", func(_ context.Context, _ *saga.Call, s *trip, a approval) error {
				w.note("approved by %s", a.By)
				return nil
			}).Timeout(10*time.Minute),
			saga.Pivot("pay", w.do("pay")))
	}
	for name, at := range map[string]time.Duration{"at once": 0, "later": 8 * time.Minute,
		"at the last moment": 10*time.Minute - 1} {
		t.Run(name, func(t *testing.T) {
			w := &world{}
			def := build(w)
			bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
				h, err := def.Start(t.Context(), o, "t1", trip{})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(at)
				for _, by := range []string{"ana", "bob"} {
					if err := def.Signal(t.Context(), o, "t1", "approval", approval{by}); err != nil &&
						!errors.Is(err, saga.ErrFinished) {
						t.Fatal(err)
					}
				}
				if _, err := h.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.saw(t, "hotel", "approved by ana", "pay")
			}, def)
		})
	}
	t.Run("too late", func(t *testing.T) {
		w := &world{}
		def := build(w)
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			w.saw(t, "hotel", "undo hotel")
			if !errors.Is(err, saga.ErrCompensated) || !errors.Is(err, saga.ErrAwaitTimeout) {
				t.Error(err)
			}
			if err := def.Signal(t.Context(), o, "t1", "approval", approval{"ana"}); !errors.Is(err, saga.ErrFinished) {
				t.Errorf("a signal after the end: %v", err)
			}
			if err := def.Signal(t.Context(), o, "t1", "pay", 1); err == nil {
				t.Error("a signal without an await")
			}
		})
	})
	t.Run("the time passes while no node is up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{}
			def := build(w)
			mem := sagamem.New()
			a := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def))
			stop := start(t, a)
			if _, err := def.Start(t.Context(), a, "t1", trip{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			stop()
			time.Sleep(72 * time.Hour)
			start(t, saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def)))
			if _, err := def.Handle(a, "t1").Wait(t.Context()); !errors.Is(err, saga.ErrAwaitTimeout) {
				t.Error(err)
			}
		})
	})
}

func TestCancelEndsAtThePivot(t *testing.T) {
	t.Run("while a step runs", func(t *testing.T) {
		w := &world{}
		slow := func(_ context.Context, _ *saga.Call, _ *trip) error {
			time.Sleep(5 * time.Second)
			w.note("car")
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
			saga.Step("car", slow).Compensate(w.undo("car")), saga.Pivot("pay", w.do("pay")))
		bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
			h, _ := def.Start(t.Context(), o, "t1", trip{})
			time.Sleep(time.Second)
			for range 2 {
				if err := o.Cancel(t.Context(), "t1"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrCancelled) || !errors.Is(err, saga.ErrCompensated) {
				t.Error(err)
			}
			w.saw(t, "hotel", "car", "undo car", "undo hotel")
			if err := o.Cancel(t.Context(), "none"); !errors.Is(err, saga.ErrNotFound) {
				t.Errorf("Cancel of none: %v", err)
			}
		}, def)
	})
	t.Run("at the pivot it is too late", func(t *testing.T) {
		w := &world{}
		slow := func(_ context.Context, _ *saga.Call, _ *trip) error {
			time.Sleep(5 * time.Second)
			w.note("pay")
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
			saga.Pivot("pay", slow))
		bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
			h, _ := def.Start(t.Context(), o, "t1", trip{})
			time.Sleep(time.Second)
			if err := o.Cancel(t.Context(), "t1"); !errors.Is(err, saga.ErrPastPivot) {
				t.Errorf("Cancel: %v, want ErrPastPivot", err)
			}
			if _, err := h.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			w.saw(t, "hotel", "pay")
		}, def)
	})
}
