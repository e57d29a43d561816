package breaker

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// StateChange is a change of state.
type StateChange struct {
	// Name is the name of the breaker.
	Name string
	// From and To are the states.
	From, To State
	// Counts are the calls in From.
	Counts Counts
	// Err is the failure that opened the breaker, nil when it was opened manually.
	Err error
	// At is when.
	At time.Time
}

// Call is an attempt or a rejection.
type Call struct {
	// Name is the name of the breaker.
	Name string
	// Outcome is what the attempt meant; Ignore for a rejection.
	Outcome Outcome
	// Rejected is "open", "full", "limited" or "overloaded" for a call that was not tried, or, with ObserveOnly, would not
	// have been; else "".
	Rejected string
	// Err is what the call returned.
	Err error
	// Duration is how long it took.
	Duration time.Duration
}

// maxWaiting bounds the calls that wait for the hook: in the queue, and again in the batch that is being delivered.
const maxWaiting = 1 << 15

// hooks delivers events in order, on a goroutine that lives while there are any.
type hooks struct {
	onState func(StateChange)
	onCall  func(Call)
	onLimit func(LimitChange)
	log     *slog.Logger

	mu      sync.Mutex
	queue   []any
	running bool
}

func newHooks(cfg Config) *hooks {
	return &hooks{onState: cfg.OnStateChange, onCall: cfg.OnCall, onLimit: cfg.OnLimitChange, log: cfg.Logger}
}

func (h *hooks) stateChanged(c StateChange) {
	if h.onState != nil {
		h.enqueue(c)
	}
}

func (h *hooks) limitChanged(name string, from, to int) {
	if h.onLimit != nil {
		h.enqueue(LimitChange{Name: name, From: from, To: to})
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
	case errors.Is(err, ErrOverloaded):
		reason = "overloaded"
	}
	h.enqueue(Call{Name: name, Outcome: Ignore, Rejected: reason, Err: err})
}

func (h *hooks) enqueue(event any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, state := event.(StateChange); !state && len(h.queue) >= maxWaiting {
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
			h.call(e, events[i+1:])
		}
	}
}

// call calls the hook for an event. It survives a hook that panics or ends its goroutine: the events that follow must
// be delivered, and no caller waits for this goroutine.
func (h *hooks) call(event any, rest []any) {
	returned := false
	defer func() {
		p := recover()
		if p != nil {
			h.log.Error("breaker: a hook panicked", "panic", p, "stack", string(debug.Stack()))
		}
		if p == nil && !returned { // runtime.Goexit: another goroutine continues
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
	case LimitChange:
		h.onLimit(e)
	}
	returned = true
}
