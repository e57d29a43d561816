package orders

import (
	"context"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// topics are what is told of events.
var topics = map[string]string{
	"order_created":   "orders.created",
	"order_paid":      "orders.paid",
	"order_shipped":   "orders.shipped",
	"order_delivered": "orders.delivered",
	"order_cancelled": "orders.cancelled",
}

// tell puts what was appended into the outbox, inside the transaction of the append.
func tell(outbox messaging.Publisher) func(ctx context.Context, events []eventstore.Recorded) error {
	return func(ctx context.Context, events []eventstore.Recorded) error {
		for _, e := range events {
			topic, ok := topics[e.Type]
			if !ok {
				continue
			}
			if err := outbox.Publish(ctx, topic, e.Data, messaging.WithID(e.ID), messaging.WithKey(e.Stream), messaging.WithTime(e.Time)); err != nil {
				return err
			}
		}
		return nil
	}
}
