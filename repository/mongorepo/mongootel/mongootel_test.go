package mongootel_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/mongorepo/mongootel"
)

func Example() {
	client, err := mongo.Connect(options.Client().
		ApplyURI("mongodb://127.0.0.1:27017/").SetMonitor(mongootel.Monitor(nil)))
	if err != nil { // it does not connect yet
		fmt.Println(err)
		return
	}
	fmt.Println(client.Disconnect(context.Background()))
	// Output: <nil>
}

func TestSpansOfAServer(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	users := testenv.MongoDatabase(t, testenv.Mongo(t),
		options.Client().SetMonitor(mongootel.Monitor(tp))).Collection("users")
	if _, err := users.InsertOne(t.Context(), bson.M{"_id": 1}); err != nil { // outside of every trace
		t.Fatal(err)
	}
	if n := len(spans.GetSpans()); n != 0 {
		t.Errorf("%d spans without a trace", n)
	}
	ctx, root := tp.Tracer("test").Start(t.Context(), "root")
	if err := users.FindOne(ctx, bson.M{"secret": "hunter2-hush"}).Err(); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Fatal(err)
	}
	if _, err := users.InsertOne(ctx, bson.M{"_id": 2, "secret": "hunter2-hush"}); err != nil {
		t.Fatal(err)
	}
	if err := users.Database().Client().Database("admin").RunCommand(ctx,
		bson.D{{Key: "noSuchCommand", Value: "hunter2-hush"}}).Err(); err == nil {
		t.Fatal("an unknown command went well")
	}
	var names []string
	for _, s := range spans.GetSpans() {
		names = append(names, s.Name)
		if s.Parent.SpanID() != root.SpanContext().SpanID() || s.SpanKind != trace.SpanKindClient {
			t.Errorf("%s: %v under %v", s.Name, s.SpanKind, s.Parent)
		}
		if (s.Status.Code == codes.Error) != (s.Name == "noSuchCommand") {
			t.Errorf("%s: %v", s.Name, s.Status)
		}
	}
	if got := fmt.Sprint(names); got != "[find users insert users noSuchCommand]" ||
		strings.Contains(fmt.Sprintf("%+v", spans.GetSpans()), "hush") {
		t.Errorf("spans %s", got)
	}
}

// Driver events of commands without a span, or repeated ones, are ignored; nothing is kept.
func TestUnknownCommandsLeaveNothingBehind(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	m := mongootel.Monitor(tp)
	ctx, _ := tp.Tracer("test").Start(t.Context(), "root")
	command, err := bson.Marshal(bson.D{{Key: "getMore", Value: int64(7)}, {Key: "collection", Value: "users"}})
	if err != nil {
		t.Fatal(err)
	}
	m.Started(ctx, &event.CommandStartedEvent{Command: command, CommandName: "getMore", DatabaseName: "shop",
		RequestID: 1})
	done := &event.CommandSucceededEvent{CommandFinishedEvent: event.CommandFinishedEvent{RequestID: 1}}
	m.Succeeded(ctx, done)
	m.Succeeded(ctx, done)
	m.Failed(ctx, &event.CommandFailedEvent{CommandFinishedEvent: event.CommandFinishedEvent{RequestID: 2}})
	if got := spans.GetSpans(); len(got) != 1 || got[0].Name != "getMore users" {
		t.Errorf("spans %+v", got)
	}
}
