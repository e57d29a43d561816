package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
)

// A group retries what fails and keeps what it gives up.
func ExampleRouter() {
	type orderCreated struct{ ID string }
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	broker := memory.Must(memory.New(memory.Config{Source: "orders"}))
	defer broker.Close()

	router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Logger: quiet}))
	group := router.Group("billing", messaging.GroupConfig{
		Concurrency: 4,
		Retry:       messaging.Retry{Attempts: 3, Backoff: messaging.Exponential(10*time.Millisecond, time.Second)},
	})
	messaging.Handle(group, "orders.created", func(_ context.Context, m messaging.Message[orderCreated]) error {
		if m.Attempt < 2 {
			return errors.New("the card service is down")
		}
		fmt.Println("billed order", m.Data.ID, "at attempt", m.Attempt)
		return nil
	})
	messaging.HandleRaw(group, "orders.*", func(_ context.Context, m messaging.Message[[]byte]) error {
		defer stop()
		return messaging.Permanent(errors.New("billing does not know " + m.Type))
	})
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()

	<-router.Running() // the group has its queue
	if err := broker.Publish(ctx, "orders.created", orderCreated{ID: "42"}); err != nil {
		fmt.Println(err)
	}
	time.Sleep(100 * time.Millisecond)
	if err := broker.Publish(ctx, "orders.melted", orderCreated{ID: "43"}); err != nil {
		fmt.Println(err)
	}
	fmt.Println("drained:", <-done)
	dead, _ := broker.DeadLetters(context.Background(), "billing", 10)
	fmt.Println("dead letter:", dead[0].Type, "-", dead[0].Reason)
	// Output:
	// billed order 42 at attempt 2
	// drained: <nil>
	// dead letter: orders.melted - billing does not know orders.melted
}
