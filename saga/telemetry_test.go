package saga_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// A saga that another node goes on with, in another process as far as anybody can tell, stays in the trace, and under
// the correlation id, of who started it.
func TestTraceGoesOnAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		reader := sdkmetric.NewManualReader()
		meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		var zombie *flaky
		var ids []string
		car := func(ctx context.Context, c *saga.Call, _ *trip) error {
			ids = append(ids, correlation.From(ctx))
			if c.Fence() == 1 {
				zombie.down.Store(true)
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		def := saga.Define[trip]("trip", 1, saga.Step("car", car).Timeout(time.Hour), saga.Pivot("pay", (&world{}).do("pay")))
		mem := sagamem.New()
		zombie = &flaky{Store: mem}
		cfg := saga.Config{Logger: quiet, TracerProvider: provider, MeterProvider: meters}
		a := saga.Must(saga.New(zombie, cfg, def))
		start(t, a)
		ctx, root := provider.Tracer("test").Start(correlation.With(t.Context(), "c-9"), "request")
		if _, err := def.Start(ctx, a, "t1", trip{}); err != nil {
			t.Fatal(err)
		}
		root.End()
		synctest.Wait()
		b := saga.Must(saga.New(mem, cfg, def))
		start(t, b)
		if _, err := def.Handle(b, "t1").Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		names := map[string]int{}
		for _, s := range spans.Ended() {
			names[s.Name()]++
			if s.SpanContext().TraceID() != root.SpanContext().TraceID() {
				t.Errorf("span %s is in another trace", s.Name())
			}
			if s.Name() != "request" && !s.Parent().IsValid() {
				t.Errorf("span %s has no parent", s.Name())
			}
		}
		if names["saga trip"] != 2 || names["do car"] != 2 || names["do pay"] != 1 {
			t.Errorf("spans %v, want one of the saga for each owner, and one for each attempt", names)
		}
		if len(ids) != 2 || ids[0] != "c-9" || ids[1] != "c-9" {
			t.Errorf("correlation ids %v", ids)
		}
		checkAttempts(t, reader)
	})
}

// checkAttempts compares the attempts that were counted.
func checkAttempts(t *testing.T, reader *sdkmetric.ManualReader) {
	t.Helper()
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range d.DataPoints {
				status, _ := p.Attributes.Value("status")
				counts[m.Name+" "+status.AsString()] += uint64(p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range d.DataPoints {
				outcome, _ := p.Attributes.Value("outcome")
				counts[m.Name+" "+outcome.AsString()] += p.Count
			}
		}
	}
	if counts["sillar.saga.finished COMPLETED"] != 1 || counts["sillar.saga.step.duration success"] != 2 ||
		counts["sillar.saga.step.duration in_doubt"] != 1 {
		t.Errorf("metrics %v", counts)
	}
}

func TestGaugesOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		reject := func(context.Context, *saga.Call, *trip) error { return saga.Reject(errors.New("no")) }
		waits := saga.Define("waits", 1, saga.Sleep[trip]("long", 100*time.Hour))
		sticks := saga.Define("sticks", 1, saga.Pivot("a", (&world{}).do("a")), saga.Retriable("b", reject))
		o := saga.Must(saga.New(sagamem.New(), saga.Config{Logger: quiet, MeterProvider: meters}, waits, sticks))
		start(t, o)
		for i := range 3 {
			saga.Must(waits.Start(t.Context(), o, fmt.Sprint("w", i), trip{}))
			time.Sleep(time.Hour)
		}
		saga.Must(sticks.Start(t.Context(), o, "s", trip{}))
		time.Sleep(31 * time.Second)
		var got metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &got); err != nil {
			t.Fatal(err)
		}
		checkGauges(t, got)
	})
}

// checkGauges compares the gauges that the store fills.
func checkGauges(t *testing.T, got metricdata.ResourceMetrics) {
	t.Helper()
	values := map[string]float64{}
	add := func(name string, set attribute.Set, v float64) {
		def, _ := set.Value("saga")
		status, _ := set.Value("status")
		values[strings.TrimSpace(name+" "+def.AsString()+" "+status.AsString())] = math.Round(v)
	}
	for _, m := range got.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Gauge[int64]:
			for _, p := range d.DataPoints {
				add(m.Name, p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[float64]:
			for _, p := range d.DataPoints {
				add(m.Name, p.Attributes, p.Value)
			}
		}
	}
	want := map[string]float64{
		"sillar.saga.sagas waits RUNNING": 3, "sillar.saga.sagas waits COMPENSATING": 0, "sillar.saga.sagas waits STUCK": 0,
		"sillar.saga.sagas sticks RUNNING": 0, "sillar.saga.sagas sticks COMPENSATING": 0,
		"sillar.saga.sagas sticks STUCK":   1,
		"sillar.saga.oldest waits RUNNING": 3*3600 + 31, "sillar.saga.oldest waits COMPENSATING": 0,
		"sillar.saga.oldest waits STUCK":    0,
		"sillar.saga.oldest sticks RUNNING": 0, "sillar.saga.oldest sticks COMPENSATING": 0,
		"sillar.saga.oldest sticks STUCK": 31,
		"sillar.saga.running waits":       0, "sillar.saga.running sticks": 0,
	}
	if d := cmp.Diff(want, values); d != "" {
		t.Errorf("gauges (-want +got):\n%s", d)
	}
}
