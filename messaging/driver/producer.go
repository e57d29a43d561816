package driver

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/carrier"
)

// Producer makes the span of an event that is published, and the envelope that carries it: what its consumers do is a
// child of that span.
type Producer struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	system     string
	source     string
	options    []trace.SpanStartOption
	delayed    bool
}

// Delayed returns a Producer that lets events with Envelope.DeliverAt pass; otherwise they are an ErrUnsupported.
func (p Producer) Delayed() Producer {
	p.delayed = true
	return p
}

// checkDelay refuses an event that is to be held back by a broker that does not. The past does not hold back.
func (p Producer) checkDelay(e *messaging.Envelope) error {
	switch {
	case e.DeliverAt.IsZero(), p.delayed:
		return nil
	case time.Now().Before(e.DeliverAt):
		return fmt.Errorf("%w: delayed publishing over %s: an outbox in SQL holds the event back", messaging.ErrUnsupported,
			p.system)
	}
	e.DeliverAt = time.Time{}
	return nil
}

// NewProducer makes a Producer of a broker's kind, such as "rabbitmq", whose events have that source when they name
// none. A nil provider is the global one, a nil propagator trace context and correlation id.
func NewProducer(tp trace.TracerProvider, propagator propagation.TextMapPropagator, scope, system,
	source string) Producer {
	tp = cmp.Or(tp, otel.GetTracerProvider())
	propagator = cmp.Or(propagator, correlation.DefaultPropagator())
	return Producer{tracer: tp.Tracer(scope), propagator: propagator, system: system, source: source,
		options: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindProducer)}}
}

// New makes an event that can be published, and begins its span. The span is to be ended with End.
func (p Producer) New(ctx context.Context, topic string, payload any,
	opts ...messaging.Option) (messaging.Envelope, trace.Span, error) {
	ctx, span := p.start(ctx, topic)
	e, err := messaging.NewEnvelope(topic, payload, opts...)
	if err == nil {
		err = p.checkDelay(&e)
	}
	if err == nil {
		e, err = Fill(ctx, e, p.source, p.propagator)
	}
	return e, p.about(span, e), err
}

// Fill returns the function Fill for the events of one batch. It also begins a span for each, unless the event carries
// a trace already: what gave it that one, such as an outbox's relay, has made the span. Without tracing no span is
// begun after the first one has shown that it does nothing.
func (p Producer) Fill(ctx context.Context) func(messaging.Envelope) (messaging.Envelope, trace.Span, error) {
	parent, none := ctx, trace.SpanFromContext(context.Background())
	idle := false
	return func(e messaging.Envelope) (messaging.Envelope, trace.Span, error) {
		ctx, span := parent, none
		if !idle && !p.traced(e) {
			ctx, span = p.start(ctx, e.Type)
			// A span that is made, recorded or not, has an id of its own.
			idle = !span.IsRecording() && span.SpanContext().Equal(trace.SpanContextFromContext(parent))
		}
		err := p.checkDelay(&e)
		if err == nil {
			e, err = Fill(ctx, e, p.source, p.propagator)
		}
		return e, p.about(span, e), err
	}
}

func (p Producer) traced(e messaging.Envelope) bool {
	return len(e.Headers) > 0 && trace.SpanContextFromContext(p.propagator.Extract(context.Background(),
		carrier.Carrier(e.Headers))).IsValid()
}

func (p Producer) start(ctx context.Context, topic string) (context.Context, trace.Span) {
	return p.tracer.Start(ctx, "send "+topic, p.options...)
}

func (p Producer) about(span trace.Span, e messaging.Envelope) trace.Span {
	if span.IsRecording() {
		span.SetAttributes(attribute.String("messaging.system", p.system), attribute.String("messaging.operation.type",
			"send"),
			attribute.String("messaging.destination.name", e.Type), attribute.String("messaging.message.id", e.ID))
	}
	return span
}

// End ends a span with what became of its event.
func (Producer) End(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "not published")
	}
	span.End()
}
