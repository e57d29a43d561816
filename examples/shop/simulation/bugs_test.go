package simulation_test

import (
	"context"
	"strings"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// bug is a mistake that is planted into the shop, below its services, to show that the simulation finds it.
type bug string

const (
	noBug bug = ""
	// noInbox: messages that come twice are handled twice.
	noInbox bug = "no inbox"
	// noBarrier: steps of sagas are applied however often and in whatever order they come.
	noBarrier bug = "no barrier"
	// publishBeforeCommit: events are published though their transaction is rolled back.
	publishBeforeCommit bug = "publish before commit"
	// acknowledgeBeforeHandling: the broker forgets a message when it is received.
	acknowledgeBeforeHandling bug = "acknowledge before handling"
	// noVersionCheck: a saga is saved though it was changed meanwhile.
	noVersionCheck bug = "no version check"
)

// rewrites are the bugs in statements: what is replaced by what, in statements that contain the first string.
var rewrites = map[bug][3]string{
	noInbox: {"INSERT INTO sillar_inbox", "ON CONFLICT DO NOTHING",
		"ON CONFLICT (consumer, id) DO UPDATE SET applied_at = excluded.applied_at"},
	noBarrier: {"INSERT INTO sillar_barrier ", "ON CONFLICT DO NOTHING",
		"ON CONFLICT (step, op) DO UPDATE SET set_by = excluded.set_by"},
	noVersionCheck: {"UPDATE sillar_sagas SET version", "AND sillar_sagas.revision = w.revision", ""},
}

func (b bug) rewrite(query string) string {
	r, ok := rewrites[b]
	if ok && strings.Contains(query, r[0]) {
		query = strings.ReplaceAll(query, r[1], r[2])
		if b == noVersionCheck {
			query = strings.ReplaceAll(query, "AND sillar_sagas.signal_seq = w.signal_seq", "")
		}
	}
	return query
}

// keeps reports whether a statement takes effect though its transaction is rolled back.
func (b bug) keeps(query string) bool {
	return b == publishBeforeCommit && strings.HasPrefix(query, "INSERT INTO sillar_outbox")
}

// delivery returns what a group receives.
func (b bug) delivery(ctx context.Context, d messaging.Delivery) (messaging.Delivery, error) {
	if b != acknowledgeBeforeHandling {
		return d, nil
	}
	return settled{d}, d.Ack(ctx)
}

// settled is a delivery that was acknowledged when it was received.
type settled struct{ messaging.Delivery }

func (settled) Ack(context.Context) error                         { return nil }
func (settled) Retry(context.Context, time.Duration, error) error { return nil }
func (settled) Requeue(context.Context) error                     { return nil }
