// Package messaging publishes and handles events that are not lost: CloudEvents over a broker with queues, confirms,
// delayed retries and dead letters.
//
//	broker, err := rabbitmq.New("amqp://localhost", rabbitmq.Config{Source: "orders"}) // or memory.New
//	...
//	err = broker.Publish(ctx, "orders.created", OrderCreated{ID: "42"}) // nil: routed and confirmed
//
//	r, err := messaging.NewRouter(broker, messaging.RouterConfig{})
//	g := r.Group("notifications", messaging.GroupConfig{Concurrency: 16})
//	messaging.Handle(g, "orders.created", func(ctx context.Context, m messaging.Message[OrderCreated]) error {
//		return mail(ctx, m.Data)
//	})
//	err = r.Run(ctx) // returns when drained
//
// # Guarantees
//
//   - Delivery is at least once. With a Deduplicator (the inboxes) an event is applied once.
//   - A handler settles by what it returns: nil acknowledges; an error retries after a pause that a queue of the broker
//     keeps; Permanent sends to the dead letters at once; RetryAfter says when. A panic counts as an error.
//   - A message that no handler of its process takes is retried for about 12 minutes (GroupConfig.Unhandled): while
//     versions roll, another process may handle it.
//   - The content type of a body selects how it is decoded: JSON, the codecs of RouterConfig.Codecs, or as it is for
//     []byte. CloudEvents in structured mode (application/cloudevents+json) are read as those in binary mode; batches
//     of them are not.
//   - A body that does not decode, and a message that stays without a handler, become dead letters, kept whole,
//     with reason, attempts and origin.
//   - When Run's context ends nothing new starts, what has not started goes back without counting an attempt, running
//     handlers finish with a live context, and then Run returns.
//   - Correlation id and trace context travel in the headers, through OpenTelemetry's propagation API.
//
// # What it does not do
//
// It promises no order, save by key within one group of one process (GroupConfig.Ordered) or, with
// GroupConfig.SingleActive, of several, one of which is active; with GroupConfig.Partitions several are, each for its
// share of the keys, where the broker has that (RabbitMQ, Kafka, in process). A retried message comes later. It holds
// no transaction: package outbox and the inboxes tie events to a database.
package messaging
