package saga_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

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
