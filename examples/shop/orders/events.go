package orders

import (
	"context"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// topics maps event types to the topics they are published under.
var topics = map[string]string{
	"order_created":   "orders.created",
	"order_paid":      "orders.paid",
	"order_shipped":   "orders.shipped",
	"order_delivered": "orders.delivered",
	"order_cancelled": "orders.cancelled",
}

// toOutbox stores appended events in the outbox, in the transaction of the append.
func toOutbox(outbox messaging.Publisher) func(ctx context.Context, events []eventstore.Recorded) error {
	return func(ctx context.Context, events []eventstore.Recorded) error {
		for _, e := range events {
			topic, ok := topics[e.Type]
			if !ok {
				continue
			}
			if err := outbox.Publish(ctx, topic, e.Data, messaging.WithID(e.ID), messaging.WithKey(e.Stream),
				messaging.WithTime(e.Time)); err != nil {
				return err
			}
		}
		return nil
	}
}
