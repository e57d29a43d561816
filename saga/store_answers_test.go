package saga_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// strict refuses what PostgreSQL does: text that is not UTF-8, or holds a NUL.
type strict struct{ saga.Store }

func (s strict) Save(ctx context.Context, r saga.Record) error {
	if !utf8.ValidString(r.Cause) || strings.ContainsRune(r.Cause, 0) {
		return errors.New("invalid byte sequence for encoding UTF8")
	}
	return s.Store.Save(ctx, r)
}

// The text of a refusal comes from another service: whatever it is, the saga ends, and is not too large to
// store.
func TestErrorsOfAnyText(t *testing.T) {
	for name, text := range map[string]string{
		"a NUL":                    "declined\x00",
		"not UTF-8":                "declined \xff\xfe",
		"cut within a character":   strings.Repeat("a", 999) + "é",
		"longer than any database": strings.Repeat("x", 20<<20),
	} {
		for kind, step := range map[string]func(err error) saga.Node[trip]{
			"a step": func(err error) saga.Node[trip] { return saga.Step("car", (&world{}).fail("car", saga.Reject(err))) },
			"a branch": func(err error) saga.Node[trip] {
				return saga.Parallel("both", saga.Step("car", (&world{}).fail("car", saga.Reject(err))))
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				def := saga.Define("trip", 1, step(errors.New(text)))
				o := saga.Must(saga.New(strict{sagamem.New()}, saga.Config{Logger: quiet}, def))
				defer start(t, o)()
				h, err := def.Start(t.Context(), o, "1", trip{})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err = h.Wait(ctx)
				var failed *saga.FailedError
				if !errors.As(err, &failed) || !errors.Is(err, saga.ErrCompensated) || len(failed.Cause) > 2000 ||
					len(failed.Cause) < 8 {
					t.Errorf("%s, in %s: %.100v", name, kind, err)
				}
			})
		}
	}
}

// losing applies the write by which a saga ends, and loses the answer.
type losing struct {
	saga.Store
	lost atomic.Int32
}

func (l *losing) Save(ctx context.Context, r saga.Record) error {
	err := l.Store.Save(ctx, r)
	if err == nil && r.Status.Ended() && l.lost.Add(1) == 1 {
		return errDown
	}
	return err
}

func TestEndWhoseAnswerIsLostIsCountedOnce(t *testing.T) {
	w := &world{}
	reject := w.fail("b", saga.Reject(errors.New("no")))
	for status, def := range map[saga.Status]*saga.Def[trip]{
		saga.Completed:   saga.Define("trip", 1, saga.Step("a", w.do("a")), saga.Pivot("b", w.do("b"))),
		saga.Compensated: saga.Define("trip", 1, saga.Step("a", w.do("a")), saga.Step("b", reject)),
		saga.Stuck:       saga.Define("trip", 1, saga.Pivot("a", w.do("a")), saga.Retriable("b", reject)),
	} {
		t.Run(string(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := sdkmetric.NewManualReader()
				store := &losing{Store: sagamem.New()}
				o := saga.Must(saga.New(store, saga.Config{Logger: quiet,
					MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, def))
				start(t, o)
				h := saga.Must(def.Start(t.Context(), o, "1", trip{}))
				if _, err := h.Wait(t.Context()); (err == nil) != (status == saga.Completed) {
					t.Error(err)
				}
				time.Sleep(time.Minute) // another node, or this one, might go on with it
				if store.lost.Load() == 0 {
					t.Error("no answer was lost")
				}
				want := map[string]int64{string(status): 1}
				if diff := cmp.Diff(want, finished(t, reader)); diff != "" {
					t.Errorf("finished sagas (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A saga that an operator ends is counted as stuck, and as completed.
func TestEndByAnOperatorIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		def := saga.Define("trip", 1, saga.Pivot("a", w.do("a")),
			saga.Retriable("b", w.fail("b", saga.Reject(errors.New("no")))))
		reader := sdkmetric.NewManualReader()
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: quiet,
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, def))
		start(t, o)
		h := saga.Must(def.Start(t.Context(), o, "1", trip{}))
		if _, err := h.Wait(t.Context()); !errors.Is(err, saga.ErrStuck) {
			t.Fatal(err)
		}
		if err := o.Skip(t.Context(), "1", "b", "ana", "done by hand"); err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{"STUCK": 1, "COMPLETED": 1}
		if diff := cmp.Diff(want, finished(t, reader)); diff != "" {
			t.Errorf("finished sagas (-want +got):\n%s", diff)
		}
	})
}

// finished returns how many sagas were counted as ended, by status.
func finished(t *testing.T, reader *sdkmetric.ManualReader) map[string]int64 {
	t.Helper()
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		if d, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "sillar.saga.finished" {
			for _, p := range d.DataPoints {
				status, _ := p.Attributes.Value("status")
				counts[status.AsString()] += p.Value
			}
		}
	}
	return counts
}

// late is a store that is not there yet.
type late struct {
	saga.Store
	asked atomic.Int32
}

func (l *late) Shapes(ctx context.Context, k saga.Kind) ([]string, error) {
	if l.asked.Add(1) < 5 {
		return nil, errDown
	}
	return l.Store.Shapes(ctx, k)
}

// Services start in any order: an orchestrator waits for its store.
func TestStoreThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		def := saga.Define("trip", 1, saga.Step("car", w.do("car")))
		store := &late{Store: sagamem.New()}
		o := saga.Must(saga.New(store, saga.Config{Logger: quiet}, def))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		h, err := def.Start(t.Context(), o, "1", trip{})
		if err != nil {
			t.Fatal(err)
		}
		wctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if _, err := h.Wait(wctx); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// forgetful has lost the saga "gone", as after a manual delete of its row.
type forgetful struct{ saga.Store }

func (f forgetful) Save(ctx context.Context, r saga.Record) error {
	if r.ID == "gone" {
		return saga.ErrNotFound
	}
	return f.Store.Save(ctx, r)
}

func TestSagaThatIsDeletedMeanwhile(t *testing.T) {
	w := &world{}
	def := saga.Define("trip", 1, saga.Step("car", w.do("car")), saga.Step("hotel", w.do("hotel")))
	synctest.Test(t, func(t *testing.T) {
		o := saga.Must(saga.New(forgetful{sagamem.New()}, saga.Config{Logger: quiet, Concurrency: 1}, def))
		defer start(t, o)()
		var h *saga.Handle[trip]
		for _, id := range []string{"gone", "here"} {
			var err error
			if h, err = def.Start(t.Context(), o, id, trip{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := h.Wait(ctx); err != nil {
			t.Errorf("its place was not given to the next: %v", err)
		}
	})
}

func TestFailedErrorIsOneText(t *testing.T) {
	e := &saga.FailedError{ID: "1", Name: "trip", Status: saga.Stuck, Step: "pay", Cause: "declined",
		Compensations: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}}
	const want = "saga: trip 1 is stuck: step pay: declined; compensation of a: 1; compensation of b: 2; compensation " +
		"of c: 3; compensation of d: 4"
	for range 20 {
		if got := e.Error(); got != want {
			t.Fatal(got)
		}
	}
}

// The first signal stays, so one that the saga could not read must not become it.
func TestSignalOfAnotherType(t *testing.T) {
	type approval struct{ By int }
	w := &world{}
	on := func(_ context.Context, _ *saga.Call, _ *trip, a approval) error {
		w.note("approved by %d", a.By)
		return nil
	}
	def := saga.Define("trip", 1, saga.Step("car", w.do("car")), saga.Await("approval", on))
	bubble(t, saga.Config{}, func(t *testing.T, o *saga.Orchestrator) {
		h, err := def.Start(t.Context(), o, "1", trip{})
		if err != nil {
			t.Fatal(err)
		}
		for _, wrong := range []any{"yes", map[string]string{"By": "ana"}} {
			if err := def.Signal(t.Context(), o, "1", "approval", wrong); err == nil {
				t.Errorf("%v was taken for an approval", wrong)
			}
		}
		if err := def.Signal(t.Context(), o, "1", "approval", map[string]any{"By": 7, "note": "fine"}); err != nil {
			t.Error(err)
		}
		if _, err := h.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		w.saw(t, "car", "approved by 7")
	}, def)
}

// A hook that panics, or changes the record that it is given, does not affect the saga.
func TestOnChangeIsNoPartOfTheSaga(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := saga.Define("trip", 1, saga.Step("car", (&world{}).do("car")), saga.Step("hotel", (&world{}).do("hotel")))
		var reported atomic.Int32
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: quiet, OnChange: func(_ context.Context, r saga.Record) {
			reported.Add(1)
			for i := range r.Steps {
				r.Steps[i] = saga.StepState{}
			}
			panic("ouch")
		}}, def))
		defer start(t, o)()
		h, err := def.Start(t.Context(), o, "1", trip{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := h.Wait(ctx); err != nil || reported.Load() < 2 {
			t.Errorf("Wait: %v, after %d changes", err, reported.Load())
		}
		r, err := o.Get(t.Context(), "1")
		if err != nil || r.Steps[0].Status != saga.StepCompleted || r.Steps[1].Status != saga.StepCompleted {
			t.Errorf("the saga: %+v, %v", r, err)
		}
	})
}
