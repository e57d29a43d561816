// Package outbox brings events from a database to a broker: an event is stored in the transaction that causes it, and a
// relay publishes it after the commit.
//
//	box, err := sqloutbox.New(db, sqloutbox.Config{Source: "orders"})
//	...
//	err = db.InTx(ctx, func(ctx context.Context) error {
//		...
//		return box.Publish(ctx, "orders.created", OrderCreated{ID: "42"}) // stored with the rest, or not at all
//	})
//
//	relay, err := outbox.NewRelay(box, broker, outbox.RelayConfig{})
//	err = relay.Run(ctx) // in as many processes as you like; returns when drained
//
// # Guarantees
//
//   - What was committed is published, at least once, and what was rolled back is not. An event is deleted only after
//     the broker confirmed it, and only by the relay that still has it on lease: a relay that is killed leaves its
//     events to the next one.
//   - Events of one key are published one after the other, in the order in which they were stored. An event that the
//     broker refuses is held, with growing pauses and without a limit, and stops its key. New events of other keys
//     never wait for held ones: a relay publishes both at the same time.
//   - An event that no queue takes counts as published, unless RelayConfig.Unroutable says otherwise.
//   - sqloutbox holds an event that was published with messaging.WithDeliverAt until its time, over every broker.
//   - A transaction that commits late is not skipped: nothing keeps a position.
//
// # What it does not do
//
// It does not keep an event from being published twice (a relay may die between confirm and delete); consumers drop the
// second by its id with package inbox. Transactions that store events of one key at the same time order them as the
// database numbers them: take the lock of the entity first.
package outbox

import (
	"context"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// Entry is an event that waits.
type Entry struct {
	messaging.Envelope
	// Ref is the store's name for it.
	Ref string
	// Attempts counts how often it could not be published.
	Attempts int
}

// Held is an event that is held after a failed attempt.
type Held struct {
	Entry
	// Until is when the relay tries it again.
	Until time.Time
	// StopsKey says that later events of the same key wait for it.
	StopsKey bool
}

// Hold says how a store holds entries.
type Hold struct {
	// Pause is the time until ClaimHeld returns them.
	Pause time.Duration
	// StopsKey has later entries of the same key wait until the held one is published or dropped.
	StopsKey bool
	// Uncounted leaves the entries' Attempts as they are: the broker failed, not the entries.
	Uncounted bool
}

// HeldStore is what operators need of a store. The outboxes implement it.
type HeldStore interface {
	// ListHeld returns up to limit held events, the one that is tried next first. Among them are those that were published
	// with messaging.WithDeliverAt and wait for their time: they have no attempts and do not stop their keys.
	ListHeld(ctx context.Context, limit int) ([]Held, error)
	// RetryHeld ends the pause of held events, by Ref, or of all that have failed when no Ref is named, and returns their
	// number (mongooutbox: of documents).
	RetryHeld(ctx context.Context, refs ...string) (int64, error)
	// SkipHeld lets the later events of their keys pass the held events that are named, which stay held. It returns
	// their number.
	SkipHeld(ctx context.Context, refs ...string) (int64, error)
	// DropHeld deletes the held events that are named, unpublished, and returns their number. An event that a relay is
	// publishing at the time is left alone.
	DropHeld(ctx context.Context, refs ...string) (int64, error)
}

// Store is the port of a database that holds events. The outboxes implement it.
type Store interface {
	// Claim leases up to limit entries that have not been held to owner, in order. It leaves out entries whose key has
	// an entry on lease, or an earlier entry that is held and stops its key.
	Claim(ctx context.Context, owner string, limit int, lease time.Duration) ([]Entry, error)
	// ClaimHeld leases up to limit held entries whose pause has ended to owner, the longest overdue first.
	ClaimHeld(ctx context.Context, owner string, limit int, lease time.Duration) ([]Entry, error)
	// Done deletes those of the entries that owner still has on lease.
	Done(ctx context.Context, owner string, entries []Entry) error
	// Release ends the lease of entries, uncounted.
	Release(ctx context.Context, owner string, entries []Entry) error
	// Hold ends the lease of entries and holds them.
	Hold(ctx context.Context, owner string, entries []Entry, h Hold) error
	// Wake returns a channel that gets a value when there may be something to claim, until ctx ends. It is a hint.
	Wake(ctx context.Context) <-chan struct{}
	// Pending returns how many entries wait, at least up to 100,000, and since when the oldest could be published: the
	// zero time where none can.
	Pending(ctx context.Context) (count int64, oldest time.Time, err error)
}
