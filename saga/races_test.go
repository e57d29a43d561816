package saga_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

func TestSignalAfterTheTimeoutOfItsAwaitIsTooLate(t *testing.T) {
	var block chan struct{}
	def := saga.Define("trip", 1,
		saga.Step("hotel", (&world{}).do("hotel")).Compensate(func(context.Context, *saga.Call, *trip) error {
			<-block
			return nil
		}),
		saga.Await("approval", func(context.Context, *saga.Call, *trip, int) error { return nil }).Timeout(time.Hour))
	bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
		block = make(chan struct{})
		h, err := def.Start(t.Context(), o, "t1", trip{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Second)
		if err := def.Signal(t.Context(), o, "t1", "approval", 1); !errors.Is(err, saga.ErrTooLate) {
			t.Errorf("Signal while compensating: %v, want ErrTooLate", err)
		}
		close(block)
		if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrAwaitTimeout) {
			t.Errorf("Wait: %v", err)
		}
		if err := def.Signal(t.Context(), o, "t1", "approval", 1); !errors.Is(err, saga.ErrFinished) {
			t.Errorf("Signal after the end: %v, want ErrFinished", err)
		}
	}, def)
}

func TestCancelDuringTheLastStepCompensates(t *testing.T) {
	w := &world{}
	def := saga.Define("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
		saga.Step("car", func(context.Context, *saga.Call,
			*trip) error {
			time.Sleep(5 * time.Second)
			return nil
		}).Compensate(w.undo("car")))
	bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
		h, err := def.Start(t.Context(), o, "t1", trip{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := o.Cancel(t.Context(), "t1"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrCancelled) || !errors.Is(err, saga.ErrCompensated) {
			t.Errorf("Wait: %v, want cancelled and compensated", err)
		}
		w.saw(t, "hotel", "undo car", "undo hotel")
	}, def)
}

func TestResultThatNoStoreHoldsMakesTheSagaStuck(t *testing.T) {
	type state struct{ Raw json.RawMessage }
	def := saga.Define("trip", 1, saga.Step("car", func(_ context.Context, _ *saga.Call, s *state) error {
		s.Raw = json.RawMessage("\"\xff\"")
		return nil
	}))
	run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ state, err error) {
		var failed *saga.FailedError
		if !errors.As(err, &failed) || !errors.Is(err, saga.ErrStuck) || !strings.Contains(failed.Cause, "UTF-8") {
			t.Errorf("%v, want a stuck saga and the reason", err)
		}
	})
}

func TestStartRefusesIDsThatAStoreRefuses(t *testing.T) {
	def := saga.Define("trip", 1, saga.Step("car", (&world{}).do("car")))
	bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
		for _, id := range []string{"", "a\xff", "a\x00", "a\nb", strings.Repeat("a", 201)} {
			if _, err := def.Start(t.Context(), o, id, trip{}); err == nil {
				t.Errorf("Start accepted the id %.20q", id)
			}
		}
	}, def)
}

func TestStartReportsAnotherState(t *testing.T) {
	def := saga.Define("trip", 1, saga.Step("car", (&world{}).do("car")))
	bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
		for range 2 {
			if _, err := def.Start(t.Context(), o, "t1", trip{Hotel: "a"}); err != nil {
				t.Fatal(err)
			}
		}
		h, err := def.Start(t.Context(), o, "t1", trip{Hotel: "b"})
		if !errors.Is(err, saga.ErrStarted) || h == nil {
			t.Fatalf("Start with another state: %v, want ErrStarted", err)
		}
		if s, err := h.Wait(t.Context()); err != nil || s.Hotel != "a" {
			t.Errorf("Wait: %+v, %v", s, err)
		}
	}, def)
}

func TestWaitSeesARetryOnAnotherNode(t *testing.T) {
	down := true
	def := saga.Define("trip", 1, saga.Pivot("pay", func(context.Context, *saga.Call, *trip) error {
		if down {
			return errBoom
		}
		return nil
	}).Retry(1, saga.Constant(0)))
	synctest.Test(t, func(t *testing.T) {
		mem := sagamem.New()
		a := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def))
		b := saga.Must(saga.New(mem, saga.Config{Logger: quiet}, def))
		start(t, a)
		start(t, b)
		h, err := def.Start(t.Context(), a, "t1", trip{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrStuck) {
			t.Fatalf("Wait: %v, want ErrStuck", err)
		}
		down = false
		if err := b.Retry(t.Context(), "t1", "ana"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := h.Wait(t.Context()); err != nil {
			t.Errorf("Wait on the first node after the retry on the second: %v", err)
		}
	})
}
