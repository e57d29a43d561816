package saga

import (
	"context"
	"fmt"
)

// Call describes the attempt to its handler.
type Call struct {
	id, name, step string
	undo           bool
	attempt        int
	fence          int64
	certain        bool
	failed, cause  string
	payload        []byte
	signal         int64 // the number of a signal of an AwaitEach
	done           bool  // set by the handler of an AwaitEach
	encode         func() ([]byte, error)
	save           func(ctx context.Context, state []byte) error
}

// SagaID returns the saga's id.
func (c *Call) SagaID() string { return c.id }

// Step returns the step's name.
func (c *Call) Step() string { return c.step }

// Compensating reports whether the attempt is one of the compensation, not of the action.
func (c *Call) Compensating() bool { return c.undo }

// Key returns the idempotency key: sagaID/step/do, or sagaID/step/undo in a compensation. It is the same on every
// attempt; the participant applies it once. In an AwaitEach it is sagaID/step#n/do for the signal number n.
func (c *Call) Key() string {
	if c.undo {
		return c.id + "/" + c.step + "/undo"
	}
	return c.id + "/" + c.step + signalSuffix(c.signal) + "/do"
}

// Attempt counts from 1.
func (c *Call) Attempt() int { return c.attempt }

// Fence grows with every takeover of the saga: a participant may refuse a smaller one than it has seen.
func (c *Call) Fence() int64 { return c.fence }

// Certain reports, in a compensation, whether the action is known to have succeeded. When it is false the action may or
// may not have had an effect, and may yet arrive: undo it if it is there, and see that it cannot come later (package
// barrier).
func (c *Call) Certain() bool { return c.certain }

// Cause returns, in a compensation, which step failed the saga, and with what: the error's text, or that of
// ErrCancelled or ErrAwaitTimeout.
func (c *Call) Cause() (step, said string) { return c.failed, c.cause }

// Checkpoint stores the state as the handler has changed it so far, so that the next attempt begins with it. It
// returns ErrFenced when another orchestrator has taken over: stop then. A branch of a Parallel has none.
func (c *Call) Checkpoint(ctx context.Context) error {
	if c.save == nil {
		return fmt.Errorf("saga: step %s: no checkpoints in a branch of a Parallel", c.step)
	}
	state, err := c.encode()
	if err != nil {
		return fmt.Errorf("saga: encode the state: %w", err)
	}
	return c.save(ctx, state)
}
