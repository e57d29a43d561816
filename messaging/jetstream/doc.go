// Package jetstream is a messaging.Broker over NATS JetStream (server 2.10 and later).
//
//	broker, err := jetstream.New("nats://user:password@host1:4222,host2:4222",
//		jetstream.Config{Source: "orders", Replicas: 3})
//	...
//	err = broker.Publish(ctx, "orders.created", OrderCreated{ID: "42"}) // nil: stored by JetStream
//
// Topology: one stream (Config.Stream, "microservices" unless named) holds events, at the subjects
// microservices.<topic>, and retries, at microservices_retry.<group>; the stream microservices_dead holds dead letters,
// at microservices_dead.<group>. A group is a durable pull consumer of the first, which filters by its patterns. Names
// of groups are escaped where NATS does not allow their bytes: orders.v1 is orders=2Ev1. Streams and consumers are made
// when they are missing; with Config.Passive an operator makes the streams.
//
// # Guarantees
//
//   - Publish returns nil when the stream has the message (PubAck), on a majority of its replicas. A publish whose
//     outcome is unknown is sent again under the same Nats-Msg-Id, made of topic, source and id, and the server stores
//     it once within Config.Duplicates (Config.ReportUnknown: it is reported).
//   - A message stays until each group that takes its topic has acknowledged it, without limit in time. With
//     Config.Keep it stays that long, acknowledged or not, and new groups can begin with it (messaging.StartEarliest,
//     StartAt).
//   - The server redelivers a message that is not settled within Config.AckWait. This package extends the time of every
//     delivery that is held, so handlers may run longer; when the process or its connection is lost, the message comes
//     again after at most AckWait.
//   - A retry is a copy at the group's own subject, confirmed before the delivery is acknowledged; no other group sees
//     it. The copy waits by a negative acknowledgement with a delay, which the server keeps. A copy of one delivery is
//     stored once within Config.Duplicates.
//   - A dead letter is confirmed in its stream before the delivery is acknowledged. Redrive confirms the message at the
//     group's subject before it deletes the letter.
//   - A connection that breaks is made again without limit, to any server of the cluster. Streams and consumers that
//     were deleted are made again.
//   - What only an operator can mend, such as a stream with other subjects or a refused password, is returned as
//     ErrTopology or ErrPermission.
//   - URLs, and the passwords in them, appear in no error and no log line.
//
// # What it does not do
//
//   - JetStream does not say whether a group takes a topic: Publish never returns messaging.ErrUnroutable, and without
//     Config.Keep an event that no group takes is dropped (Features.Unroutable is false).
//   - NATS has no wildcard for words in the middle: a pattern has # at the end or not at all. Nor can a consumer filter
//     by two patterns that overlap without one containing the other, such as a.* and *.b. Both are ErrPattern on
//     Subscribe. Topics with empty words are messaging.ErrInvalid.
//   - It keeps no order by key across the processes of a group: SingleActive, Partitions and Ephemeral are
//     messaging.ErrUnsupported, and so is publishing with a time of delivery.
//   - It removes no groups: without Config.Keep the stream keeps everything for a consumer that is not used any more
//     until an operator deletes it.
//   - It removes no patterns of a group, as RabbitMQ's bindings stay. Two processes that add different patterns to one
//     group in the same moment may undo each other's for up to 30 seconds; those that are there already are safe.
//   - A message that is sent again after an unknown outcome may come after those behind it in its batch.
//   - An acknowledgement is not confirmed by the server: one that is lost makes a duplicate.
//   - Delays are measured by the servers; a clock of a client that is wrong can make a pause up to three times as long.
//   - A message needs 4 KiB less than the server's max_payload, which are kept for retries and dead letters.
//   - A server without replicas forces what it confirmed to the disk every two minutes unless it is configured
//     (sync_interval).
//   - Headers whose names begin with nats-, ce- or x-sillar- are not published.
//   - It does not change the settings of streams that exist (replicas, limits), and has no key-value or object store.
package jetstream
