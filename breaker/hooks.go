package breaker

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// StateChange tells of a change of state.
type StateChange struct {
	// Name is the breaker's.
	Name string
	// From and To are the states.
	From, To State
	// Counts are the calls in From.
	Counts Counts
	// Err is the failure that opened the breaker, nil when a hand did.
	Err error
	// At is when.
	At time.Time
}

// Call tells of an attempt or a rejection.
type Call struct {
	// Name is the breaker's.
	Name string
	// Outcome is what the attempt meant; Ignore for a rejection.
	Outcome Outcome
	// Rejected is "open", "full" or "limited" for a call that was not tried, or, with ObserveOnly, would not have been;
	// else "".
	Rejected string
	// Err is what the call returned.
	Err error
	// Duration is how long it took.
	Duration time.Duration
}

// maxWaiting bounds the calls that wait to be told: so many in the queue, and so many that are being delivered.
const maxWaiting = 1 << 15

// hooks tells in order, on a goroutine that lives while there is something to tell.
type hooks struct {
	onState func(StateChange)
	onCall  func(Call)

	mu      sync.Mutex
	queue   []any
	running bool
}

func newHooks(cfg Config) *hooks { return &hooks{onState: cfg.OnStateChange, onCall: cfg.OnCall} }

func (h *hooks) stateChanged(c StateChange) {
	if h.onState != nil {
		h.enqueue(c)
	}
}

func (h *hooks) called(name string, out Outcome, err error, took time.Duration) {
	if h.onCall != nil {
		h.enqueue(Call{Name: name, Outcome: out, Err: err, Duration: took})
	}
}

func (h *hooks) rejected(name string, err error) {
	if h.onCall == nil {
		return
	}
	reason := ""
	switch {
	case errors.Is(err, ErrOpen):
		reason = "open"
	case errors.Is(err, ErrFull):
		reason = "full"
	case errors.Is(err, ErrLimited):
		reason = "limited"
	}
	h.enqueue(Call{Name: name, Outcome: Ignore, Rejected: reason, Err: err})
}

func (h *hooks) enqueue(event any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, call := event.(Call); call && len(h.queue) >= maxWaiting {
		return
	}
	h.queue = append(h.queue, event)
	if !h.running {
		h.running = true
		go h.deliver()
	}
}

func (h *hooks) deliver() {
	for {
		h.mu.Lock()
		events := h.queue
		h.queue = nil
		if len(events) == 0 {
			h.running = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		for i, e := range events {
			h.tell(e, events[i+1:])
		}
	}
}

// tell survives a hook that panics or ends its goroutine: the next event must be told, and nobody waits for this
// goroutine.
func (h *hooks) tell(event any, rest []any) {
	returned := false
	defer func() {
		if recover() == nil && !returned { // runtime.Goexit: another goroutine goes on
			h.mu.Lock()
			h.queue = append(slices.Clone(rest), h.queue...)
			h.mu.Unlock()
			go h.deliver()
		}
	}()
	switch e := event.(type) {
	case StateChange:
		h.onState(e)
	case Call:
		h.onCall(e)
	}
	returned = true
}
