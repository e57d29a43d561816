package benchmarks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// The samples of docs/coming-from-watermill.md. Each pair is the same program with one of the libraries.

type orderPaid struct{ Order string }

var errNoSuchOrder = errors.New("no such order")

// shipper fails once, ships, and knows only order 42.
func shipper() func(ctx context.Context, order string) error {
	calls := 0
	return func(_ context.Context, order string) error {
		calls++
		switch {
		case order != "42":
			return errNoSuchOrder
		case calls == 1:
			return errors.New("connection reset")
		}
		fmt.Println("shipped", order, "at attempt", calls)
		return nil
	}
}

func Example_watermillRouter() {
	ctx, stop := context.WithCancel(context.Background())
	ship := shipper()
	dead := make(chan string, 1)

	pubSub := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		panic(err)
	}
	poison, err := middleware.PoisonQueue(pubSub, "shipping.dead")
	if err != nil {
		panic(err)
	}
	retry := middleware.Retry{MaxRetries: 2, InitialInterval: time.Millisecond,
		ShouldRetry: func(p middleware.RetryParams) bool { return !errors.Is(p.Err, errNoSuchOrder) }}
	router.AddMiddleware(poison, retry.Middleware, middleware.Recoverer)
	router.AddConsumerHandler("ship", "orders.paid", pubSub, func(msg *message.Message) error {
		var event orderPaid
		if err := json.Unmarshal(msg.Payload, &event); err != nil {
			return err
		}
		return ship(msg.Context(), event.Order)
	})
	router.AddConsumerHandler("dead", "shipping.dead", pubSub, func(msg *message.Message) error {
		dead <- msg.Metadata.Get(middleware.ReasonForPoisonedKey)
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()

	for _, order := range []string{"42", "43"} {
		body, err := json.Marshal(orderPaid{order})
		if err != nil {
			panic(err)
		}
		if err := pubSub.Publish("orders.paid", message.NewMessage(watermill.NewUUID(), body)); err != nil {
			panic(err)
		}
		if order == "42" {
			time.Sleep(50 * time.Millisecond)
		}
	}

	fmt.Println("dead:", <-dead)
	stop()
	fmt.Println(<-done)
	// Output:
	// shipped 42 at attempt 2
	// dead: no such order
	// <nil>
}

func Example_messagingRouter() {
	ctx, stop := context.WithCancel(context.Background())
	ship := shipper()

	broker := memory.Must(memory.New(memory.Config{Source: "orders"}))
	router := messaging.Must(messaging.NewRouter(broker, messaging.RouterConfig{Logger: slog.New(slog.DiscardHandler)}))
	shipping := router.Group("shipping", messaging.GroupConfig{
		Retry: messaging.Retry{Attempts: 3, Backoff: messaging.Exponential(time.Millisecond, time.Second)},
	})
	messaging.Handle(shipping, "orders.paid", func(ctx context.Context, m messaging.Message[orderPaid]) error {
		err := ship(ctx, m.Data.Order)
		if errors.Is(err, errNoSuchOrder) {
			return messaging.Permanent(err)
		}
		return err
	})
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()

	for _, order := range []string{"42", "43"} {
		if err := broker.Publish(ctx, "orders.paid", orderPaid{order}, messaging.WithKey(order)); err != nil {
			panic(err)
		}
		if order == "42" {
			time.Sleep(50 * time.Millisecond)
		}
	}

	for {
		dead, err := broker.DeadLetters(ctx, "shipping", 10)
		if err != nil {
			panic(err)
		}
		if len(dead) > 0 {
			fmt.Println("dead:", dead[0].Reason)
			break
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// shipped 42 at attempt 2
	// dead: no such order
	// <nil>
}

// The examples that follow need a server: they are compiled and not run.

func Example_watermillRabbitMQ() {
	ctx := context.Background()
	orders := []orderPaid{{"42"}, {"43"}}
	url := os.Getenv("RABBITMQ_URI")

	config := watermillamqp.NewDurablePubSubConfig(url, watermillamqp.GenerateQueueNameTopicNameWithSuffix("shipping"))
	config.Publish.ConfirmDelivery = true
	config.Queue.Arguments = map[string]any{"x-queue-type": "quorum"}
	config.Consume.Qos.PrefetchCount = 20
	publisher, err := watermillamqp.NewPublisher(config, watermill.NopLogger{})
	if err != nil {
		panic(err)
	}
	defer publisher.Close()
	for _, o := range orders {
		body, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		msg := message.NewMessageWithContext(ctx, watermill.NewUUID(), body)
		if err := publisher.Publish("orders.paid", msg); err != nil { // waits for its confirm
			panic(err)
		}
	}
}

func Example_messagingRabbitMQ() {
	ctx := context.Background()
	orders := []orderPaid{{"42"}, {"43"}}
	url := os.Getenv("RABBITMQ_URI")

	broker := rabbitmq.Must(rabbitmq.New(url, rabbitmq.Config{Source: "orders"}))
	defer broker.Close()
	for _, o := range orders { // from many goroutines: confirms are pipelined
		err := broker.Publish(ctx, "orders.paid", o, messaging.WithKey(o.Order))
		if errors.Is(err, messaging.ErrUnroutable) {
			continue // no group wants it
		}
		if err != nil {
			panic(err)
		}
	}
}
