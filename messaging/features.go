package messaging

import (
	"errors"
	"time"
)

// ErrUnsupported says that the broker lacks a feature that was asked for: see Features.
var ErrUnsupported = errors.New("messaging: the broker does not support it")

// Features says what a broker does beyond the port. A feature that is missing is a typed error where it is asked for.
type Features struct {
	// Unroutable: Publish returns ErrUnroutable when no group takes the topic. Otherwise nil means that the broker has
	// stored the message for the groups that exist, of which there may be none.
	Unroutable bool
	// Delays: the broker keeps the pause before a retry, so that the pause ends also when the consumer that asked for
	// it has died.
	Delays bool
	// AnyHash: # may stand at any place of a pattern. Otherwise only at the end.
	AnyHash bool
	// DelayedPublish: events may be published with WithDeliverAt and WithDelay.
	DelayedPublish bool
	// Replay: a new group may begin with messages that were published before it existed (Subscription.Start).
	Replay bool
	// OrderByKey: messages of one Key are delivered in the order in which they were published, by one process of the
	// group at a time, whatever the number of its processes. In exchange those of different keys, and those without a
	// key, have no order, a process may receive nothing while another one is busy, and what a stopped stream has not
	// received goes on when what it has received is settled.
	OrderByKey bool
	// SingleActive and Ephemeral: a Subscription may ask for them.
	SingleActive, Ephemeral bool
	// Partitions: a Subscription may ask for them. With OrderByKey they are those of the broker's topics, whatever the
	// number that is asked for.
	Partitions bool
}

// Featured is implemented by brokers that declare their Features.
type Featured interface {
	// Features returns what the broker does.
	Features() Features
}

// FeaturesOf returns what a broker declares, and the zero Features for one that declares nothing.
func FeaturesOf(broker any) Features {
	if f, ok := broker.(Featured); ok {
		return f.Features()
	}
	return Features{}
}

// Start is the position from which a new group consumes. The zero value is what is published from then on. A group that
// exists keeps its position.
type Start struct {
	earliest bool
	time     time.Time
}

// StartEarliest begins with the oldest message that the broker keeps.
func StartEarliest() Start { return Start{earliest: true} }

// StartAt begins with the messages that the broker stored at t or later.
func StartAt(t time.Time) Start { return Start{time: t.UTC()} }

// Earliest reports whether s is StartEarliest.
func (s Start) Earliest() bool { return s.earliest }

// Time returns the time of StartAt, and the zero time for others.
func (s Start) Time() time.Time { return s.time }
