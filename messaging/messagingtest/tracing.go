package messagingtest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
)

// RunTracing checks the spans of a broker that was made with a tracer provider: each event has one producer span under its
// caller's, and what its handlers do is under that.
func RunTracing(t *testing.T, factory func(t *testing.T, tp trace.TracerProvider) messaging.Broker) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	b := factory(t, tp)
	e := &env{T: t, Broker: b}
	e.ctx, e.cancel = context.WithTimeout(t.Context(), 2*patience)
	defer e.cancel()
	defer func() { e.must(b.Close()) }()
	e.bind("g", "t")
	handled, parents := make(chan trace.SpanContext), map[string]string{}
	e.route(func(r *messaging.Router) {
		messaging.HandleRaw(r.Group("g", messaging.GroupConfig{}), "t", func(ctx context.Context, m messaging.Message[[]byte]) error {
			if parent := m.Headers["traceparent"]; len(parent) == 55 {
				parents[m.ID] = parent[36:52]
			}
			handled <- trace.SpanContextFromContext(ctx)
			return nil
		})
	})
	ctx, caller := tp.Tracer("test").Start(e.ctx, "caller")
	e.must(b.Publish(ctx, "t", 1, messaging.WithID("direct")))
	<-handled
	e.must(b.PublishBatch(ctx, []messaging.Envelope{{Type: "t", ID: "batch"}}))
	<-handled
	const foreign = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	e.must(b.PublishBatch(ctx, []messaging.Envelope{{Type: "t", ID: "relayed", Headers: map[string]string{"traceparent": foreign}}}))
	if got := <-handled; got.TraceID().String() != foreign[3:35] {
		e.Errorf("an event with a trace of its own was handled in trace %s", got.TraceID())
	}
	if err := b.Publish(ctx, "nobody", 1, messaging.WithID("refused")); !errors.Is(err, messaging.ErrUnroutable) {
		e.Errorf("publishing what nobody takes: %v", err)
	}
	caller.End()

	sent := map[string]tracetest.SpanStub{}
	for _, s := range spans.GetSpans() {
		if s.SpanKind != trace.SpanKindProducer {
			continue
		}
		if id := text(s, "messaging.message.id"); sent[id].Name != "" {
			e.Errorf("%s has two spans", id)
		} else {
			sent[id] = s
		}
		if s.Parent.SpanID() != caller.SpanContext().SpanID() || text(s, "messaging.system") == "" || text(s, "messaging.operation.type") != "send" ||
			s.Name != "send "+text(s, "messaging.destination.name") {
			e.Errorf("span %s under %s, with %v", s.Name, s.Parent.SpanID(), s.Attributes)
		}
	}
	if len(sent) != 3 || sent["direct"].Status.Code != codes.Unset || sent["refused"].Status.Code != codes.Error {
		e.Errorf("producer spans %v", sent)
	}
	for _, id := range []string{"direct", "batch"} {
		if want := sent[id].SpanContext.SpanID().String(); parents[id] != want {
			e.Errorf("%s came with parent %s, want its producer's span %s", id, parents[id], want)
		}
	}
}

func text(s tracetest.SpanStub, key attribute.Key) string {
	i := slices.IndexFunc(s.Attributes, func(a attribute.KeyValue) bool { return a.Key == key })
	if i < 0 {
		return ""
	}
	return s.Attributes[i].Value.AsString()
}
