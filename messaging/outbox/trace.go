package outbox

import (
	"context"
	"maps"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/carrier"
)

// startSpans begins a producer span for each event whose own trace is recorded, and makes it the parent of what its
// consumers do. Such events get headers of their own: the store's entries stay as they were claimed. An event without a
// recorded trace gets none, and its span is nil.
func (r *Relay) startSpans(ctx context.Context, events []messaging.Envelope) []trace.Span {
	spans := make([]trace.Span, len(events))
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{}) // an event belongs to its own trace, not to the relay's
	for i := range events {
		e := &events[i]
		own := r.cfg.Propagator.Extract(ctx, carrier.Carrier(e.Headers))
		if !trace.SpanContextFromContext(own).IsSampled() {
			continue
		}
		own, span := r.tracer.Start(own, "send "+e.Type, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", e.Type),
			attribute.String("messaging.message.id", e.ID),
			attribute.String("sillar.outbox.name", r.cfg.Name)))
		spans[i] = span
		if span.IsRecording() {
			e.Headers = maps.Clone(e.Headers)
			r.cfg.Propagator.Inject(own, carrier.Carrier(e.Headers))
		}
	}
	return spans
}

func endSpans(spans []trace.Span, errs []error) {
	for i, s := range spans {
		if s == nil {
			continue
		}
		if errs[i] != nil {
			s.SetStatus(codes.Error, "not published")
		}
		s.End()
	}
}
