package outbox

import "context"

// Unroutable is a policy for events that no queue takes.
type Unroutable int

const (
	// UnroutableDiscard takes an event that no queue takes for published, as a broker without subscribers does: it is
	// counted (outcome unroutable), logged once a topic by each relay, and deleted. A group that subscribes later does
	// not get it.
	UnroutableDiscard Unroutable = iota
	// UnroutableHold holds the event and tries it again, with growing pauses, until a queue takes it. Later events of
	// its key pass it.
	UnroutableHold
	// UnroutableHoldKey does the same and stops the event's key, so that its order is kept.
	UnroutableHoldKey
)

// maxUnroutable bounds the topics that a relay remembers to have logged.
const maxUnroutable = 1000

// logUnroutable logs each topic once.
func (r *Relay) logUnroutable(ctx context.Context, e Entry) {
	r.mu.Lock()
	logged := r.unroutable[e.Type]
	if !logged {
		if len(r.unroutable) >= maxUnroutable {
			clear(r.unroutable)
		}
		r.unroutable[e.Type] = true
	}
	r.mu.Unlock()
	if !logged {
		r.cfg.Logger.WarnContext(ctx, "outbox: no queue takes the events of a topic; this is logged once", "outbox",
			r.cfg.Name,
			"topic", e.Type, "message_id", e.ID, "discarded", r.cfg.Unroutable == UnroutableDiscard)
	}
}
