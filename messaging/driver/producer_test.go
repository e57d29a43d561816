package driver_test

import (
	"context"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// counted is a provider of tracers that counts the spans they begin.
type counted struct {
	trace.TracerProvider
	begun *int
}

func (c counted) Tracer(name string, o ...trace.TracerOption) trace.Tracer {
	return countedTracer{c.TracerProvider.Tracer(name, o...), c.begun}
}

type countedTracer struct {
	trace.Tracer
	begun *int
}

func (c countedTracer) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context,
	trace.Span) {
	*c.begun++
	return c.Tracer.Start(ctx, name, o...)
}

// Without tracing a batch begins one span; with it each event has its own, sampled or not.
func TestFillBeginsSpansWhereThereIsTracing(t *testing.T) {
	const events = 3
	parent := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled}))
	for name, c := range map[string]struct {
		provider trace.TracerProvider
		want     int
	}{
		"no tracing": {noop.NewTracerProvider(), 1},
		"sampled":    {sdktrace.NewTracerProvider(), events},
		"unsampled":  {sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), events},
	} {
		for place, ctx := range map[string]context.Context{"": t.Context(), " in a trace": parent} {
			begun := 0
			fill := driver.NewProducer(counted{c.provider, &begun}, nil, "scope", "system", "source").Fill(ctx)
			seen := map[string]bool{}
			for range events {
				e, span, err := fill(messaging.Envelope{Type: "t"})
				if err != nil {
					t.Fatal(err)
				}
				span.End()
				seen[e.Headers["traceparent"]] = true
			}
			if traces := map[bool]int{true: events, false: 1}[c.want == events]; begun != c.want || len(seen) != traces {
				t.Errorf("%s%s: got %d spans and headers %v, want %d and %d", name, place, begun, seen, c.want, traces)
			}
		}
	}
}
