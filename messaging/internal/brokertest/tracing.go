package brokertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
)

// Tracing checks that each event that is published has one producer span under its caller's, and comes with that span
// as the parent of what its handlers do. System is what the spans call the broker; publishing to the topic refused
// fails with why.
func Tracing(t *testing.T, system, refused string, why error, open func(trace.TracerProvider) messaging.Broker) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	b := open(tp)
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := b.Subscribe(within, messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 1})
	must(err)
	parents := map[string]string{}
	come := func() (traceparent string) {
		t.Helper()
		d, err := s.Receive(within)
		must(err)
		must(d.Ack(t.Context()))
		traceparent = d.Envelope().Headers["traceparent"]
		if len(traceparent) == 55 {
			parents[d.Envelope().ID] = traceparent[36:52]
		}
		return traceparent
	}
	ctx, caller := tp.Tracer("test").Start(t.Context(), "caller")
	must(b.Publish(ctx, "t", 1, messaging.WithID("direct")))
	come()
	must(b.PublishBatch(ctx, []messaging.Envelope{{Type: "t", ID: "batch"}}))
	come()
	const foreign = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	must(b.PublishBatch(ctx, []messaging.Envelope{{Type: "t", ID: "relayed",
		Headers: map[string]string{"traceparent": foreign}}}))
	if got := come(); got != foreign {
		t.Errorf("an event with a trace of its own came with %s", got)
	}
	if err := b.Publish(ctx, refused, 1, messaging.WithID("refused")); !errors.Is(err, why) {
		t.Errorf("publishing to the topic %q: %v, want %v", refused, err, why)
	}
	caller.End()

	sent := map[string]tracetest.SpanStub{}
	for _, s := range spans.GetSpans() {
		if s.SpanKind != trace.SpanKindProducer {
			continue
		}
		if id := text(s, "messaging.message.id"); sent[id].Name != "" {
			t.Errorf("%s has two spans", id)
		} else {
			sent[id] = s
		}
		if s.Parent.SpanID() != caller.SpanContext().SpanID() || text(s, "messaging.system") != system ||
			text(s, "messaging.operation.type") != "send" ||
			s.Name != "send "+text(s, "messaging.destination.name") {
			t.Errorf("span %s under %s, with %v", s.Name, s.Parent.SpanID(), s.Attributes)
		}
	}
	if len(sent) != 3 || sent["direct"].Status.Code != codes.Unset || sent["refused"].Status.Code != codes.Error {
		t.Errorf("producer spans %v", sent)
	}
	for _, id := range []string{"direct", "batch"} {
		if want := sent[id].SpanContext.SpanID().String(); parents[id] != want {
			t.Errorf("%s came with parent %s, want its producer's span %s", id, parents[id], want)
		}
	}
	must(s.Close())
}

func text(s tracetest.SpanStub, key attribute.Key) string {
	i := slices.IndexFunc(s.Attributes, func(a attribute.KeyValue) bool { return a.Key == key })
	if i < 0 {
		return ""
	}
	return s.Attributes[i].Value.AsString()
}
