package sqloutbox_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

// An event is published when its transaction commits, and only then.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{}))
	defer db.Close()
	box := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "orders"}))
	if err := box.EnsureSchema(ctx); err != nil {
		fmt.Println(err)
		return
	}
	broker := memory.Must(memory.New(memory.Config{}))
	defer broker.Close()
	stream, err := broker.Subscribe(ctx, messaging.Subscription{Group: "g", Patterns: []string{"orders.#"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	relay := outbox.Must(outbox.NewRelay(box, broker, outbox.RelayConfig{}))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()

	for _, order := range []string{"1", "2"} {
		err := db.InTx(ctx, func(ctx context.Context) error {
			if err := box.Publish(ctx, "orders.created", map[string]string{"id": order}); err != nil {
				return err
			}
			if order == "1" {
				return errors.New("out of stock")
			}
			return nil
		})
		fmt.Println("order", order, err)
	}
	if d, err := stream.Receive(ctx); err == nil {
		fmt.Println(d.Envelope().Type, string(d.Envelope().Body))
		_ = d.Ack(ctx)
	}
	stop()
	fmt.Println("drained:", <-done)
	// Output:
	// order 1 out of stock
	// order 2 <nil>
	// orders.created {"id":"2"}
	// drained: <nil>
}
