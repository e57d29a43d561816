package cqrs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/messaging/cqrs"
)

type place struct{ Quantity int }

type conflictError struct{ yes bool }

func (e conflictError) Error() string  { return "conflict" }
func (e conflictError) Conflict() bool { return e.yes }

func TestChainOrder(t *testing.T) {
	var got []string
	note := func(s string) cqrs.Decorator[int, int] {
		return func(next cqrs.Handler[int, int]) cqrs.Handler[int, int] {
			return cqrs.HandlerFunc[int, int](func(ctx context.Context, n int) (int, error) {
				got = append(got, s)
				return next.Handle(ctx, n)
			})
		}
	}
	h := cqrs.Chain(cqrs.HandlerFunc[int, int](func(_ context.Context, n int) (int, error) { return 2 * n, nil }),
		note("outer"), note("inner"))
	if r, err := h.Handle(t.Context(), 21); r != 42 || err != nil || !slices.Equal(got, []string{"outer", "inner"}) {
		t.Fatal(r, err, got)
	}
}

var conflicts = []struct {
	name     string
	errs     []error
	attempts int
	calls    int
}{
	{"heals", []error{conflictError{true}, fmt.Errorf("wrapped: %w", conflictError{true}), nil}, 5, 3},
	{"gives up", []error{conflictError{true}, conflictError{true}, nil}, 2, 2},
	{"says no", []error{conflictError{false}}, 5, 1},
	{"another error", []error{errors.New("boom")}, 5, 1},
	{"at least once", []error{conflictError{true}}, 0, 1},
}

func TestRetryOnConflict(t *testing.T) {
	for _, c := range conflicts {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				h := cqrs.Chain(cqrs.HandlerFunc[int, int](func(context.Context, int) (int, error) {
					calls++
					return calls, c.errs[calls-1]
				}), cqrs.RetryOnConflict[int, int](c.attempts))
				r, err := h.Handle(t.Context(), 0)
				if calls != c.calls || r != calls || !errors.Is(err, c.errs[calls-1]) {
					t.Fatalf("%d calls, result %d, %v", calls, r, err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // the wait honours the context
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		h := cqrs.Chain(cqrs.HandlerFunc[int, int](func(context.Context, int) (int, error) {
			return 0, conflictError{true}
		}), cqrs.RetryOnConflict[int, int](1<<30))
		begin := time.Now()
		if _, err := h.Handle(ctx, 0); !errors.Is(err, conflictError{true}) || time.Since(begin) > time.Second {
			t.Fatalf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestValidatedRefusesBeforeTheHandler(t *testing.T) {
	bad := errors.New("quantity must be positive")
	reached := false
	h := cqrs.Chain(cqrs.HandlerFunc[place, int](func(context.Context, place) (int, error) {
		reached = true
		return 1, nil
	}),
		cqrs.Validated[place, int](func(p place) error {
			if p.Quantity <= 0 {
				return bad
			}
			return nil
		}))
	if _, err := h.Handle(t.Context(), place{}); !errors.Is(err, cqrs.ErrInvalid) || !errors.Is(err, bad) || reached {
		t.Fatalf("%v, reached %v", err, reached)
	}
	if r, err := h.Handle(t.Context(), place{1}); r != 1 || err != nil {
		t.Fatal(err)
	}
}

// Log lines, spans and metrics say who and how, and nothing of the contents.
func TestDecorateRecordsWithoutContents(t *testing.T) {
	var log bytes.Buffer
	reader, spans := metric.NewManualReader(), tracetest.NewSpanRecorder()
	cfg := cqrs.Config{Logger: slog.New(slog.NewTextHandler(&log, nil)),
		MeterProvider:  metric.NewMeterProvider(metric.WithReader(reader)),
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))}
	h := cqrs.Decorate(cqrs.HandlerFunc[string, string](func(_ context.Context, s string) (string, error) {
		if s == "" {
			return "", errors.New("boom")
		}
		return s, nil
	}), "place_order", cfg)
	for _, s := range []string{"hunter2", ""} {
		_, _ = h.Handle(t.Context(), s)
	}
	if out := log.String(); !strings.Contains(out, "boom") || !strings.Contains(out, "place_order") ||
		strings.Contains(out, "hunter2") {
		t.Errorf("logged %s", out)
	}
	if ended := spans.Ended(); len(ended) != 2 || ended[0].Name() != "place_order" ||
		ended[1].Status().Code.String() != "Error" {
		t.Errorf("spans %v", ended)
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	m := data.ScopeMetrics[0].Metrics[0]
	if points := m.Data.(metricdata.Histogram[float64]).DataPoints; m.Name != "sillar.cqrs.duration" || m.Unit != "s" ||
		len(points) != 2 {
		t.Errorf("metrics %+v", m)
	}
}

func Example() {
	type placeOrder struct{ Quantity int }
	place := cqrs.Chain(cqrs.HandlerFunc[placeOrder, string](func(_ context.Context, c placeOrder) (string, error) {
		return fmt.Sprint("placed ", c.Quantity), nil
	}),
		cqrs.Validated[placeOrder, string](func(c placeOrder) error {
			if c.Quantity < 1 {
				return errors.New("want at least one")
			}
			return nil
		}),
		cqrs.RetryOnConflict[placeOrder, string](5))

	fmt.Println(place.Handle(context.Background(), placeOrder{Quantity: 2}))
	_, err := place.Handle(context.Background(), placeOrder{})
	fmt.Println(err)
	// Output:
	// placed 2 <nil>
	// cqrs: invalid: want at least one
}

func TestTracedMarksTheSpanOfAPanicAsFailed(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	traced := cqrs.Traced[int, int]("c",
		cqrs.Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
	h := traced(cqrs.HandlerFunc[int, int](func(context.Context, int) (int, error) { panic("boom") }))
	func() {
		defer func() { _ = recover() }()
		_, _ = h.Handle(t.Context(), 1)
	}()
	if got := spans.Ended(); len(got) != 1 || got[0].Status().Code != codes.Error {
		t.Errorf("got spans %v, want one with the status Error", got)
	}
}
