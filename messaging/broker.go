package messaging

import (
	"context"
	"time"
)

// Publisher publishes events. The brokers and the outboxes implement it.
type Publisher interface {
	// Publish sends one event. From a broker nil means: confirmed, and routed where the broker notices
	// (Features.Unroutable). From an outbox: stored in the transaction that ctx carries.
	Publish(ctx context.Context, topic string, payload any, opts ...Option) error
	// PublishBatch sends several, pipelined, in order. The error is a *BatchError.
	PublishBatch(ctx context.Context, events []Envelope) error
}

// Subscriber is the port of a broker's consuming side.
type Subscriber interface {
	// Subscribe makes a group's queue, binds it to the patterns, and consumes from it. What is published after it
	// returns reaches the queue.
	Subscribe(ctx context.Context, s Subscription) (Stream, error)
}

// Broker is both sides, and what operators need.
type Broker interface {
	Publisher
	Subscriber
	// DeadLetters returns up to limit of a group's dead letters, oldest first, and leaves them where they are.
	DeadLetters(ctx context.Context, group string, limit int) ([]DeadLetter, error)
	// Redrive moves up to limit dead letters of a group back to its queue, resets their attempts, and returns their
	// number.
	Redrive(ctx context.Context, group string, limit int) (int, error)
	// Health returns nil when the broker can be reached and takes messages.
	Health(ctx context.Context) error
	// Close ends all streams and connections.
	Close() error
}

// Subscription says what a group consumes.
type Subscription struct {
	// Group names the queue. Consumers of one group compete; every group gets every event. Its name has 1 to 200
	// bytes; names that end with .dead, begin with amq. or have .retry. or .partition. in them are reserved.
	Group string
	// Patterns are topics in which * stands for one word and # for any number of words, words being separated by dots;
	// a pattern has # at most twice.
	Patterns []string
	// Prefetch is how many deliveries may be out without being settled.
	Prefetch int
	// Ephemeral gives this stream a queue of its own, which gets every event from now on, and is removed with the
	// stream or, when its process dies, some minutes later. It has no dead letters: what is given up is logged and
	// dropped.
	Ephemeral bool
	// SingleActive has one stream of the group receive at a time; another one takes over when that is closed, and gets
	// what is given back by then in its old place. All streams of a group agree on it.
	SingleActive bool
	// Partitions divides the keys of the group among so many partitions, at most 64. One stream of the group at a time
	// receives from a partition, and the streams share the partitions evenly as they come and go. Prefetch holds for each
	// partition. All streams of a group agree on the number. Messages without a key share one partition.
	Partitions int
	// Start is where a group that does not exist yet begins. Default: with what is published from then on. Brokers
	// without Features.Replay return ErrUnsupported for others.
	Start Start
}

// Stream is a running subscription. One goroutine receives; any may settle.
type Stream interface {
	// Receive waits for the next delivery. It returns ctx's error when ctx ends, and ErrClosed after Stop or Close.
	Receive(ctx context.Context) (Delivery, error)
	// Stop ends consuming and gives back what has not been received. Deliveries that were received can still be
	// settled.
	Stop() error
	// Close is Stop, and gives back everything that has not been settled.
	Close() error
}

// Delivery is one message on its way to a handler. Exactly one of its methods is to be called, once.
type Delivery interface {
	// Envelope returns the message.
	Envelope() Envelope
	// Attempt counts from 1.
	Attempt() int
	// Advance counts an attempt that failed and is repeated in place, without the broker: Attempt returns one more. The
	// broker does not know of it until the delivery is settled.
	Advance()
	// Unhandled counts the times that the message came to a process without a handler for it, this time excluded.
	Unhandled() int
	// Ack says that it is done with.
	Ack(ctx context.Context) error
	// Retry delivers it again to this group, and to no other, after the delay or a little later. The attempt counts;
	// with a reason that matches ErrNoHandler it counts as unhandled instead.
	Retry(ctx context.Context, delay time.Duration, reason error) error
	// DeadLetter puts it to the group's dead letters.
	DeadLetter(ctx context.Context, reason error) error
	// Requeue gives it back as it came: the attempt does not count.
	Requeue(ctx context.Context) error
}

// DeadLetter is a message that was given up, kept whole.
type DeadLetter struct {
	Envelope
	// Reason is the last error's text.
	Reason string
	// Attempts is how many were made.
	Attempts int
	// Origin is the queue it came from.
	Origin string
}

// Deduplicator applies a message once. The inboxes implement it. A router calls it with the group's name, and with
// source and ID of the event: events of two sources are two, whatever their IDs.
type Deduplicator interface {
	// Once runs fn unless (consumer, id) has been seen, and notes it in fn's own transaction; dup says that it had
	// been seen. When fn fails nothing is noted.
	Once(ctx context.Context, consumer, id string, fn func(ctx context.Context) error) (dup bool, err error)
}
