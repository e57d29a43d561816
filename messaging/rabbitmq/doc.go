// Package rabbitmq is a messaging.Broker over RabbitMQ (3.10 and later, 4.x too).
//
//	broker, err := rabbitmq.New("amqp://guest:guest@localhost:5672/", rabbitmq.Config{Source: "orders"})
//	...
//	err = broker.Publish(ctx, "orders.created", OrderCreated{ID: "42"}) // nil: routed and confirmed
//
// Topology: one topic exchange (Config.Exchange); a group is a durable queue of its name; <group>.retry.<delay> are the
// queues in which retries wait, one for each delay in use; <group>.dead holds dead letters.
//
// # Guarantees
//
//   - Publish returns nil when a queue holds the message: publisher confirms and the mandatory flag are always on.
//   - A connection that breaks is made again, without limit, with a fresh channel and the topology declared anew.
//     Publishes whose outcome got lost are sent again under the same id (Config.ReportUnknown: reported). A delivery
//     of an earlier channel cannot be settled: ErrClosed.
//   - Publishing and consuming have a connection each: a broker that blocks publishers does not keep consumers from
//     acknowledging. Publish then returns within its context, with ErrBlocked.
//   - A message that the server refuses by closing the channel (too large a body, a topic that the user may not publish) is
//     told as ErrInvalid or ErrNacked; what was under way beside it is sent again.
//   - A retry or a dead letter is confirmed in its new queue before the delivery is acknowledged.
//   - URLs, and the passwords in them, appear in no error and no log line.
//
// # What it does not do
//
// It removes no bindings: when a group stops handling a topic, unbind it, or its messages become dead letters. It
// promises no order across a reconnection. Delays are rounded up to a step of a ladder, from 100ms to days.
package rabbitmq
