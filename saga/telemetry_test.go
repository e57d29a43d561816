package saga_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

// A saga that another node goes on with, in another process as far as anybody can tell, stays in the trace, and under the
// correlation id, of who started it.
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
		if counts["sillar.saga.finished COMPLETED"] != 1 || counts["sillar.saga.step.duration success"] != 2 || counts["sillar.saga.step.duration in_doubt"] != 1 {
			t.Errorf("metrics %v", counts)
		}
	})
}
