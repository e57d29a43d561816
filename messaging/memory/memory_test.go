package memory_test

import (
	"context"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	messagingtest.Run(t, func(*testing.T) messaging.Broker {
		return memory.Must(memory.New(memory.Config{Source: "test", MaxQueue: 3000}))
	}, messagingtest.Features{MaxQueue: 3000})
}

// The oldest dead letter makes room for a new one.
func TestDeadLettersAreBounded(t *testing.T) {
	b := memory.Must(memory.New(memory.Config{MaxDeadLetters: 2}))
	defer b.Close()
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"a"}, Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := b.Publish(t.Context(), "a", i, messaging.WithID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		d, err := s.Receive(t.Context())
		if err != nil || d.DeadLetter(t.Context(), nil) != nil {
			t.Fatal(err)
		}
	}
	dead, err := b.DeadLetters(t.Context(), "g", 10)
	if err != nil || len(dead) != 2 || dead[0].ID != "1" || dead[1].ID != "2" {
		t.Fatalf("%+v %v", dead, err)
	}
}

func TestTraceContextTravels(t *testing.T) {
	brokertest.Tracing(t, "memory", "nobody", messaging.ErrUnroutable, func(tp trace.TracerProvider) messaging.Broker {
		return memory.Must(memory.New(memory.Config{Source: "test", TracerProvider: tp}))
	})
}

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	broker := memory.Must(memory.New(memory.Config{Source: "orders"}))
	defer broker.Close()

	router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{}))
	group := router.Group("notifications", messaging.GroupConfig{})
	type orderCreated struct{ ID string }
	messaging.Handle(group, "orders.created", func(_ context.Context, m messaging.Message[orderCreated]) error {
		fmt.Println("mail about order", m.Data.ID)
		stop()
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()

	<-router.Running() // the group has its queue
	if err := broker.Publish(ctx, "orders.created", orderCreated{ID: "42"}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(<-done)
	// Output:
	// mail about order 42
	// <nil>
}
