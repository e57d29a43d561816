// Package mongootel makes OpenTelemetry spans of what a MongoDB client does. It is apart from mongorepo, so that who
// does not trace does not link it, and serves every user of the client: mongorepo, outbox/mongooutbox, sagamongo.
//
//	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetMonitor(mongootel.Monitor(tel.TracerProvider)))
//
// # Guarantees
//
//   - A command gets a span when the trace it belongs to is recorded; a poll that belongs to none gets none.
//   - Spans name the command and the collection, never a document, a filter or the text of an error.
//
// # What it does not do
//
// It counts nothing and logs nothing. A command that the driver tries again is two spans.
package mongootel

import (
	"cmp"
	"context"
	"sync"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/sillar-go/sillar/repository/mongorepo/mongootel"

// Monitor returns what a client's options take as SetMonitor. A nil provider is the global one.
func Monitor(tp trace.TracerProvider) *event.CommandMonitor {
	tp = cmp.Or(tp, otel.GetTracerProvider())
	m := &monitor{tracer: tp.Tracer(scope)}
	return &event.CommandMonitor{
		Started:   m.started,
		Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) { m.finished(e.RequestID, false) },
		Failed:    func(_ context.Context, e *event.CommandFailedEvent) { m.finished(e.RequestID, true) },
	}
}

// monitor pairs the two events of a command by their request id, which is unique in a process.
type monitor struct {
	tracer trace.Tracer
	spans  sync.Map // int64 -> trace.Span
}

func (m *monitor) started(ctx context.Context, e *event.CommandStartedEvent) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	name, attrs := e.CommandName, []attribute.KeyValue{
		attribute.String("db.system.name", "mongodb"),
		attribute.String("db.operation.name", e.CommandName),
		attribute.String("db.namespace", e.DatabaseName),
	}
	if c := collection(e); c != "" {
		name += " " + c
		attrs = append(attrs, attribute.String("db.collection.name", c))
	}
	_, span := m.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	m.spans.Store(e.RequestID, span)
}

// collection is the value of the command's own field, where that names a collection and nothing else, such as a user.
func collection(e *event.CommandStartedEvent) string {
	field := e.CommandName
	switch field {
	case "getMore": // its own is a cursor
		field = "collection"
	case "find", "insert", "update", "delete", "aggregate", "findAndModify", "count", "distinct",
		"create", "drop", "createIndexes", "listIndexes", "dropIndexes":
	default:
		return ""
	}
	c, _ := e.Command.Lookup(field).StringValueOK()
	return c
}

func (m *monitor) finished(id int64, failed bool) {
	v, ok := m.spans.LoadAndDelete(id)
	if !ok {
		return
	}
	span := v.(trace.Span)
	if failed {
		span.SetStatus(codes.Error, "command failed") // the driver's text may quote a document
	}
	span.End()
}
