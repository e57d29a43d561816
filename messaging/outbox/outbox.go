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
//   - What was committed is published, at least once, and what was rolled back is not. An event is deleted only after the
//     broker confirmed it, and only by the relay that still has it on lease: a relay that is killed leaves its events
//     to the next one.
//   - Events of one key are published one after the other, in the order in which they were stored. One that fails holds
//     back those of its key, with growing pauses, and no others. It is never given up.
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

// Store is the port of a database that holds events. The outboxes implement it.
type Store interface {
	// Claim leases up to limit entries to owner, in order. Entries whose key has an earlier one that is held back, or
	// one that another owner has on lease, are left out.
	Claim(ctx context.Context, owner string, limit int, lease time.Duration) ([]Entry, error)
	// Done deletes those of the entries that owner still has on lease.
	Done(ctx context.Context, owner string, entries []Entry) error
	// Release ends the lease of entries, uncounted.
	Release(ctx context.Context, owner string, entries []Entry) error
	// Hold ends the lease of an entry, counts an attempt, and holds it back for a pause.
	Hold(ctx context.Context, owner string, entry Entry, pause time.Duration) error
	// Wake returns a channel that gets a value when there may be something to claim, until ctx ends. It is a hint.
	Wake(ctx context.Context) <-chan struct{}
	// Pending returns how many entries wait, and when the oldest was stored.
	Pending(ctx context.Context) (count int64, oldest time.Time, err error)
}
