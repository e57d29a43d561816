// Package kafka is a messaging.Broker over Apache Kafka (2.4 and later), with franz-go.
//
//	broker, err := kafka.New("kafka://user:password@host1:9092,host2:9092",
//		kafka.Config{Source: "orders", Partitions: 12, Replicas: 3})
//	...
//	err = broker.Publish(ctx, "orders.paid", OrderPaid{ID: "42"}, messaging.WithKey("42")) // nil: stored
//
// Topology: the first word of a topic names the Kafka topic, so that orders.created and orders.paid of one key share a
// partition and keep their order; consumers filter by the rest. With the prefix "microservices" (Config.Prefix) there
// are
//
//	microservices.orders           events of orders.created, orders.paid, ...; Config.Partitions, Config.Keep
//	microservices.<group>.retry    what the group tries again; Config.Partitions, 35 days
//	microservices.<group>.dead     its dead letters; one partition, without limit in time
//	microservices.sillar.bindings  the patterns of all groups; one partition, compacted
//
// and the consumer group microservices.<group>. Names of groups with other characters than letters, digits and ._- get
// a hash. Topics are made when they are missing; with Config.Passive an operator makes them. Events are CloudEvents in
// binary mode (headers ce_id, ce_type, ...), and the key's partition is the one that Java's clients choose (murmur2).
//
// # Guarantees
//
//   - Publish returns nil when every replica in sync has the message (acks=all, min.insync.replicas). The producer is
//     idempotent: what it sends again is stored once, in order. A call ends with its context; what was sent and not
//     answered by then is messaging.ErrUnknownOutcome, what was not sent is messaging.ErrBlocked.
//   - Order by key holds across processes (messaging.Features.OrderByKey): one process at a time has a partition, and
//     messaging.GroupConfig.Ordered handles one message of a key at a time in it.
//   - Records are settled one by one. The offset of a partition is committed up to the first record that is not
//     settled, with the ranges behind it that are: neither a slow nor a failing message holds up the others, and
//     a process that takes the partition over passes over what was settled.
//   - A partition that moves to another process waits for the handlers of its messages, for at most Config.RevokeWait,
//     and what they settled is committed. Assignment is cooperative and sticky: the other partitions are consumed
//     meanwhile, save while handlers are waited for.
//   - A retry is a copy in the group's retry topic, confirmed before the record is settled; no other group sees it.
//     Consumers hold it until it is due. Dead letters are kept in their topic, and Redrive confirms their copies before
//     it deletes them.
//   - The patterns of a group are those of all its processes: one of an older version gives a message that it has no
//     handler for back to the group, as with other brokers (GroupConfig.Unhandled).
//   - The lag of a group is the metric sillar.kafka.lag.
//   - URLs, and the passwords in them, appear in no error and no log line.
//
// # What it does not do
//
//   - Kafka does not say whether a group takes a topic: Publish never returns messaging.ErrUnroutable. Neither
//     SingleActive nor Ephemeral groups exist, nor publishing with a time of delivery (messaging.ErrUnsupported). A
//     group that asks for Partitions has those of its topics, whatever the number.
//   - A retry is overtaken by later messages of its key. More than 1,000 retries that wait in one process hold up those
//     behind them. Pauses are compared with the consumer's clock, and are at most 28 days.
//   - A process that is killed has handled messages again that were settled since the last commit
//     (Config.CommitInterval); its partitions are without a consumer for Config.SessionTimeout. About 1,500 ranges of
//     settled records have room beside an offset: what is beyond is handled again when the partition moves.
//   - Kafka counts no deliveries: a message that kills its process comes again without limit.
//   - Messages of different keys, and those without a key, have no order. More partitions for a topic change the
//     partitions of keys, and so their order once.
//   - Kafka forgets the offsets of a group that has had no members for a week (offsets.retention.minutes). It then
//     begins where it once began, or with the oldest record: messages are handled again rather than lost.
//   - It removes no groups, topics or patterns, and changes no settings of topics that exist.
//   - Processes of a group learn added patterns from the registry: Subscribe waits half a second for
//     the others to learn a pattern that is new to a group.
//   - An event has at most 1 MiB less 8 KiB, headers included, whatever max.message.bytes is.
//     A larger record of another program that has no handler, or whose handler fails, cannot be copied: it is tried
//     again each second, and logged.
//   - It takes part in no transactions of Kafka, and has no schema registry.
package kafka
