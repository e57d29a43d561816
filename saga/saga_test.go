package saga_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

type trip struct {
	Hotel, Car, Flight string
	Log                []string
}

// world notes what handlers did, in order.
type world struct {
	mu  sync.Mutex
	log []string
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *world) saw(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := cmp.Diff(want, w.log); d != "" {
		t.Errorf("what happened (-want +got):\n%s", d)
	}
}

func (w *world) do(name string) saga.Handler[trip] {
	return func(_ context.Context, c *saga.Call, s *trip) error {
		w.note("%s", name)
		s.Log = append(s.Log, name)
		return nil
	}
}

func (w *world) undo(name string) saga.Handler[trip] {
	return func(_ context.Context, c *saga.Call, s *trip) error {
		if c.Certain() {
			w.note("undo %s", name)
		} else {
			w.note("undo %s?", name)
		}
		return nil
	}
}

func (w *world) fail(name string, err error) saga.Handler[trip] {
	return func(_ context.Context, c *saga.Call, s *trip) error {
		w.note("%s fails", name)
		s.Log = append(s.Log, "never kept")
		return err
	}
}

var errBoom = errors.New("boom")

var quiet = slog.New(slog.DiscardHandler)

// run runs a saga in a bubble of fake time to its end.
func run[S any](t *testing.T, def *saga.Def[S], check func(t *testing.T, o *saga.Orchestrator, s S, err error)) {
	t.Helper()
	bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
		var s S
		h, err := def.Start(t.Context(), o, "t1", s)
		if err != nil {
			t.Fatal(err)
		}
		s, err = h.Wait(t.Context())
		check(t, o, s, err)
	}, def)
}

func bubble(t *testing.T, cfg saga.Config, test func(t *testing.T, o *saga.Orchestrator), defs ...saga.Definition) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Logger = quiet
		o := saga.Must(saga.New(sagamem.New(), cfg, defs...))
		start(t, o)
		test(t, o)
	})
}

// start runs an orchestrator until the bubble's test ends, and waits until it has a lease.
func start(t *testing.T, o *saga.Orchestrator) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := o.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	synctest.Wait()
	return stop
}

func status(t *testing.T, o *saga.Orchestrator, id string) saga.Record {
	t.Helper()
	r, err := o.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSagaCompletesWithOneWritePerStep(t *testing.T) {
	w := &world{}
	def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
		saga.Pivot("pay", w.do("pay")), saga.Retriable("mail", w.do("mail")))
	run(t, def, func(t *testing.T, o *saga.Orchestrator, s trip, err error) {
		if err != nil {
			t.Fatal(err)
		}
		w.saw(t, "hotel", "pay", "mail")
		if d := cmp.Diff([]string{"hotel", "pay", "mail"}, s.Log); d != "" {
			t.Error(d)
		}
		r := status(t, o, "t1")
		if r.Status != saga.Completed || r.Revision != 4 {
			t.Errorf("status %s after %d writes, want COMPLETED after 4: one, and one a step", r.Status, r.Revision)
		}
		for _, st := range r.Steps {
			if st.Status != saga.StepCompleted {
				t.Errorf("step %s is %s", st.Name, st.Status)
			}
		}
	})
}

func TestStartIsIdempotent(t *testing.T) {
	w := &world{}
	def := saga.Define[trip]("trip", 1, saga.Step("hotel", w.do("hotel")))
	run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, _ error) {
		h, err := def.Start(t.Context(), o, "t1", trip{Hotel: "other"})
		if !errors.Is(err, saga.ErrStarted) {
			t.Fatal(err)
		}
		if s, err := h.Wait(t.Context()); err != nil || s.Hotel != "" {
			t.Errorf("the second Start changed the saga: %+v, %v", s, err)
		}
		w.saw(t, "hotel")
	})
}

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

func TestKeyIsStable(t *testing.T) {
	w := &world{}
	n := 0
	car := func(_ context.Context, c *saga.Call, _ *trip) error {
		w.note("%s %d", c.Key(), c.Attempt())
		if n++; n < 3 {
			return errBoom
		}
		return saga.Reject(errBoom)
	}
	undo := func(_ context.Context, c *saga.Call, _ *trip) error {
		step, said := c.Cause()
		w.note("%s %d because %s said %s", c.Key(), c.Attempt(), step, said)
		return nil
	}
	def := saga.Define[trip]("trip", 1, saga.Step("car", car).Compensate(undo))
	run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ trip, _ error) {
		w.saw(t, "t1/car/do 1", "t1/car/do 2", "t1/car/do 3", "t1/car/undo 1 because car said boom")
	})
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

func TestDefinitionsAreChecked(t *testing.T) {
	w := &world{}
	ok := w.do("x")
	for name, def := range map[string]*saga.Def[trip]{
		"no steps":               saga.Define[trip]("x", 1),
		"no name":                saga.Define[trip]("", 1, saga.Step("a", ok)),
		"version 0":              saga.Define[trip]("x", 0, saga.Step("a", ok)),
		"two of a name":          saga.Define[trip]("x", 1, saga.Step("a", ok), saga.Step("a", ok)),
		"two pivots":             saga.Define[trip]("x", 1, saga.Pivot("a", ok), saga.Pivot("b", ok)),
		"step after pivot":       saga.Define[trip]("x", 1, saga.Pivot("a", ok), saga.Step("b", ok)),
		"retriable before pivot": saga.Define[trip]("x", 1, saga.Retriable("a", ok), saga.Pivot("b", ok)),
		"no handler":             saga.Define[trip]("x", 1, saga.Step[trip]("a", nil)),
		"hostile name":           saga.Define[trip]("x", 1, saga.Step("a/do", ok)),
		"the cancel signal": saga.Define[trip]("x", 1, saga.Await("$cancel", func(context.Context, *saga.Call, *trip,
			int) error {
			return nil
		})),
		"no timeout":  saga.Define[trip]("x", 1, saga.Step("a", ok).Timeout(0)),
		"no branches": saga.Define[trip]("x", 1, saga.Parallel[trip]("a")),
	} {
		if _, err := saga.New(sagamem.New(), saga.Config{}, def); !errors.Is(err, saga.ErrDefinition) {
			t.Errorf("%s: %v, want ErrDefinition", name, err)
		}
	}
	good := saga.Define[trip]("x", 1, saga.Step("a", ok))
	if _, err := saga.New(sagamem.New(), saga.Config{}, good, good); !errors.Is(err, saga.ErrDefinition) {
		t.Errorf("registered twice: %v", err)
	}
}

func TestDrawShowsStepsAndStates(t *testing.T) {
	w := &world{}
	def := saga.Define[trip]("trip", 1,
		saga.Step("hotel", w.do("hotel")).Compensate(w.undo("hotel")),
		saga.Parallel("both", saga.Step("car", w.do("car")), saga.Step("flight", w.do("flight"))),
		saga.Pivot("pay", w.do("pay")))
	m, d := def.Mermaid(), def.DOT()
	for _, want := range []string{"flowchart LR", `s0["hotel"]`, `s0u>"undo hotel"]`, "s0 -.-> s0u", "s0 --> s1_0",
		"s1_1 --> s2", `s2{{"pay"}}`} {
		if !strings.Contains(m, want) {
			t.Errorf("Mermaid lacks %q:\n%s", want, m)
		}
	}
	for _, want := range []string{`digraph "trip"`, "s0 -> s1_0", "s1_1 -> s2", "shape=hexagon"} {
		if !strings.Contains(d, want) {
			t.Errorf("DOT lacks %q:\n%s", want, d)
		}
	}
	r := saga.Record{Steps: []saga.StepState{{Name: "hotel", Status: saga.StepCompleted}}}
	if !strings.Contains(def.Mermaid(r), "class s0 completed") || !strings.Contains(def.DOT(r), "#ccffcc") {
		t.Error("the overlay is missing")
	}
}
