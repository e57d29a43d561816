package saga

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

type end int

const (
	endDone      end = iota
	endRejected      // known to have had no effect
	endExhausted     // in doubt, and no attempts left
	endPark          // resumed later
	endLost          // the lease expired or the saga was taken over
)

type result struct {
	end   end
	state []byte
	err   error
	step  string // of a parallel: the branch that failed
	delay time.Duration
	done  bool // of a signal of an AwaitEach: it was the last one
}

// attemptOf describes the work whose attempts are made.
type attemptOf struct {
	do      func(ctx context.Context, c *Call, state []byte) ([]byte, error)
	payload []byte // of a signal
	signal  int64  // the number of a signal of an AwaitEach
	branch  bool   // of a Parallel
}

// attempts makes attempts until one decides, short pauses included.
func (r *runner) attempts(ctx context.Context, stop stopSignal, n *node, st *StepState, of attemptOf) result {
	refused := 0
	for {
		if st.Attempts >= n.attempts || st.Takeovers > r.o.cfg.MaxTakeovers { // an earlier owner used them up
			return result{end: endExhausted, err: errors.New(cmp.Or(st.Error, "attempts exhausted"))}
		}
		st.Attempts++
		c := &Call{
			id:      r.rec.ID,
			name:    r.rec.Name,
			step:    n.name,
			attempt: st.Attempts + st.Takeovers,
			fence:   r.rec.Fence,
			payload: of.payload,
			signal:  of.signal,
		}
		if !of.branch {
			c.save = r.checkpoint
		}
		state, err := r.attempt(ctx, of.do, n.timeout, c)
		switch {
		case err == nil:
			return result{end: endDone, state: state, done: c.done}
		case isRejected(err):
			return result{end: endRejected, err: err}
		}
		if retryAfter, ok := asNotAttempted(err); ok && ctx.Err() == nil {
			st.Error = cut(err.Error())
			st.Attempts--
			refused++
			retryAfter = cmp.Or(retryAfter, n.pause.Delay(refused))
			r.o.cfg.Logger.WarnContext(ctx, "saga: a step could not be attempted", "saga", r.rec.Name, "saga_id", r.rec.ID,
				"step", n.name, "retry_after", retryAfter, "error", err)
			if retryAfter >= r.o.cfg.ParkAfter || !pause(ctx, stop, retryAfter) {
				return result{end: endPark, delay: retryAfter}
			}
			continue
		}
		st.InDoubt, st.Error = true, cut(err.Error())
		if ctx.Err() != nil {
			if errors.Is(context.Cause(ctx), ErrDraining) {
				st.Attempts-- // the step is not the cause
				return result{end: endPark, delay: 0}
			}
			return result{end: endLost, err: context.Cause(ctx)}
		}
		r.o.cfg.Logger.WarnContext(ctx, "saga: a step failed", "saga", r.rec.Name, "saga_id", r.rec.ID, "step", n.name,
			"attempt", st.Attempts, "of", n.attempts, "error", err)
		if st.Attempts >= n.attempts {
			return result{end: endExhausted, err: err}
		}
		delay := n.pause.Delay(st.Attempts)
		if delay >= r.o.cfg.ParkAfter || !pause(ctx, stop, delay) {
			return result{end: endPark, delay: delay}
		}
	}
}

// pause waits, unless there is a reason to stop.
func pause(ctx context.Context, stop stopSignal, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-stop:
	}
	return false
}

// attempt calls a handler once, on a goroutine of its own, so that one that ends by runtime.Goexit ends only itself.
func (r *runner) attempt(
	ctx context.Context, h func(context.Context, *Call, []byte) ([]byte, error), timeout time.Duration, c *Call,
) (state []byte, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	ctx, span := r.o.tel.step(ctx, c)
	start := time.Now()
	defer func() { r.o.tel.stepDone(ctx, span, r.rec.Name, c, time.Since(start), err) }()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	before := r.rec.State
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		returned := false
		defer func() {
			if p := recover(); !returned {
				r.o.cfg.Logger.ErrorContext(ctx, "saga: a handler panicked", "saga", r.rec.Name, "saga_id", c.id, "step", c.step,
					"panic", p, "stack", string(debug.Stack()))
				state, err = nil, fmt.Errorf("%w: %v", ErrPanic, p)
			}
		}()
		state, err = h(ctx, c, before)
		returned = true
	}()
	if timeout += overdueAfter; !within(ended, timeout) {
		r.o.cfg.Logger.WarnContext(ctx, "saga: a handler ignores that its context has ended, and holds a slot of Concurrency",
			"saga", r.rec.Name, "saga_id", c.id, "step", c.step, "running_for", timeout)
		r.o.tel.overdue.Add(ctx, 1)
		defer r.o.tel.overdue.Add(ctx, -1)
	}
	<-ended
	return state, err
}

// overdueAfter is how long after its timeout a handler is reported.
const overdueAfter = time.Second

// within reports whether done is closed within d.
func within(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// cut turns foreign text, such as that of an error, into text that every store takes: at most 1,000 bytes of UTF-8
// without NUL.
func cut(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s[:min(len(s), 1000)], "\x00", "\uFFFD"), "\uFFFD")
}
