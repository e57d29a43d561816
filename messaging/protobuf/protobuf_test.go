package protobuf_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/protobuf"
)

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	broker := memory.Must(memory.New(memory.Config{Source: "clock"}))
	defer broker.Close()

	r := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Codecs: []messaging.Codec{protobuf.Codec{}}}))
	g := r.Group("readers", messaging.GroupConfig{})
	messaging.Handle(g, "clock.ticked", func(_ context.Context, m messaging.Message[*timestamppb.Timestamp]) error {
		fmt.Println(m.ContentType, m.Data.AsTime().Year())
		stop()
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()

	<-r.Running()
	at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err := broker.Publish(ctx, "clock.ticked", at, messaging.WithCodec(protobuf.Codec{})); err != nil {
		fmt.Println(err)
	}
	fmt.Println(<-done)
	// Output:
	// application/protobuf 2026
	// <nil>
}

// What is no message is refused, and so are bytes that are none.
func TestCodecRefusesOtherTypesAndBytes(t *testing.T) {
	c := protobuf.Codec{}
	if _, err := c.Encode("text"); err == nil {
		t.Error("a string was encoded")
	}
	var s *string
	var at *timestamppb.Timestamp
	for what, into := range map[string]any{"a string": new(string), "a pointer to one": &s, "nil": nil} {
		if err := c.Decode(nil, into); err == nil {
			t.Errorf("decoded into %s", what)
		}
	}
	if err := c.Decode([]byte{0xff}, &at); err == nil {
		t.Error("bytes were decoded that are no message")
	}
	if err := c.Decode(nil, &timestamppb.Timestamp{}); err != nil {
		t.Errorf("decode into a message: %v", err)
	}
}
