// Package rabbitmq is a messaging.Broker over RabbitMQ (3.10 and later, 4.x too).
//
//	broker, err := rabbitmq.New("amqp://guest:guest@localhost:5672/", rabbitmq.Config{Source: "orders"})
//	...
//	err = broker.Publish(ctx, "orders.created", OrderCreated{ID: "42"}) // nil: routed and confirmed
//
// Topology: one topic exchange (Config.Exchange); a group is a durable queue of its name; <group>.retry.<delay> are the
// queues in which retries wait, one for each delay in use; <group>.dead holds dead letters. A user needs the
// permissions to configure, write and read them. With Config.Passive an operator makes them: the group's queue with its
// bindings; the retry queues with x-message-ttl, x-dead-letter-exchange "" and x-dead-letter-routing-key <group>; and
// the user needs no permission to configure.
//
// A group with N partitions has, in place of its queue, the queues <group>.partition.000 and so on, each with a single
// active consumer, and <group>.partition.members, by which its processes count each other. The topic exchange is bound
// by the group's patterns to the direct exchange <group>.partitions, and that to partition n by the keys
// x-sillar-slot........ with the numbers n, n+N, n+2N, ... below 64, which messages with a key carry as a second
// routing key (the header BCC). Its alternate-exchange is the fanout exchange <group>.partitions.rest, which is bound
// to the first partition. Retry queues have x-dead-letter-exchange <group>.partitions and no x-dead-letter-routing-key.
//
// # Guarantees
//
//   - Publish returns nil when a queue holds the message: publisher confirms and the mandatory flag are always on.
//   - A connection that breaks is made again, without limit, with a fresh channel and the topology declared anew.
//     Publishes whose outcome got lost are sent again under the same id (Config.ReportUnknown: reported). A delivery
//     of an earlier channel cannot be settled: ErrClosed.
//   - Publishing and consuming have a connection each: a broker that blocks publishers does not keep consumers from
//     acknowledging. Publish then returns within its context, with ErrBlocked.
//   - A message that the server refuses by closing the channel (too large a body, a topic that the user may not
//     publish) is reported as ErrInvalid or ErrNacked; what was under way beside it is sent again.
//   - What only an operator can mend, such as an exchange of another type or a missing permission, is returned at once,
//     as ErrTopology or ErrPermission. Where it appears while the program runs, Health says so.
//   - A channel on which a topic is only refused, or nothing is confirmed for 5 seconds, is replaced by another one, at
//     most once a second and then less often: after the death of a node the old one may never recover. A full queue
//     refuses rightly, and costs that too.
//   - While a node of a cluster is frozen, messages to queues whose leader it has wait until the other nodes count it
//     as down (the server's net_ticktime, 60 s unless configured, and up to a quarter more). Publish then reports
//     unknown outcomes and Health an error. Consumers that reconnect do not wait for it where another node leads.
//   - A handler that runs longer than the server's consumer timeout (30 minutes unless configured) loses its channel,
//     and its message comes again while it still runs. That counts as an attempt in this process (Config.DeliveryLimit:
//     in all), and is logged.
//   - In a group with partitions (GroupConfig.Partitions) one process at a time handles the messages of a key, in
//     order, while processes come and go. Each compares its number of partitions with its share about once a second,
//     and releases what it has beyond when the handlers of their messages have ended. Keys keep their partitions when
//     the server restarts.
//   - A retry or a dead letter is confirmed in its new queue before the delivery is acknowledged.
//   - URLs, and the passwords in them, appear in no error and no log line.
//
// # What it does not do
//
// It removes no bindings by itself: when a group stops handling a topic, Unbind it, or its messages become dead
// letters. DeleteGroup removes a group that is no longer used. It promises no order across a reconnection: the server
// may deliver to another process, or again to this one, what a handler that has lost its connection still works on,
// also with GroupConfig.SingleActive and Partitions, which keep the order of a key across processes that drain. In a
// group with partitions, messages without a key and those of other programs share the first one, and a process that has
// died keeps its partitions until the server misses its heartbeats. Delays are rounded up
// to a step of a ladder, from 100ms to days. With Config.DeliveryLimit the server counts messages that were only
// prefetched as well as the one that ended its consumer: a small Prefetch keeps their number low. After a change of
// leader RabbitMQ 3.10 may hold retries for up to three minutes.
package rabbitmq
