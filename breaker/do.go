package breaker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Do runs fn guarded by b. Its error is fn's own, or one that says why fn was not run or ran too long.
func Do[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error)) (T, error) {
	var end time.Time
	if b.cfg.Deadline > 0 {
		end = time.Now().Add(b.cfg.Deadline)
	}
	v, out, err := attempt(ctx, b, end, fn)
	if b.cfg.Retry.Attempts > 1 && out != untried {
		b.budget.deposit()
		if err != nil {
			return retry(ctx, b, end, fn, v, out, err)
		}
	}
	return v, err
}

// DoOr is Do, and when that fails returns what fallback makes of the error.
func DoOr[T any](
	ctx context.Context,
	b *Breaker,
	fn func(context.Context) (T, error),
	fallback func(context.Context, error) (T, error),
) (T, error) {
	v, err := Do(ctx, b, fn)
	if err != nil {
		return fallback(ctx, err)
	}
	return v, nil
}

// Run is Do for a function without a result.
func (b *Breaker) Run(ctx context.Context, fn func(context.Context) error) error {
	_, err := Do(ctx, b, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// Allow is the breaker in two steps, for calls that are no function, such as streams: when it returns no error, done
// must be called with the call's result; further calls of it do nothing. The caller retries and sets timeouts.
func (b *Breaker) Allow(ctx context.Context) (done func(error), err error) {
	t, err := b.admit(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	var ended atomic.Bool
	return func(err error) {
		if !ended.CompareAndSwap(false, true) {
			return
		}
		out := Failure // when Classify panics
		defer func() { b.finish(&t, out, err) }()
		out = b.classify(ctx, &t, err)
	}, nil
}

// untried is the outcome of an attempt that was not admitted.
const untried Outcome = -1

// attempt runs fn once. end is the total deadline, if there is one: it is no context of its own, so that an attempt
// needs one context at most.
func attempt[T any](
	ctx context.Context,
	b *Breaker,
	end time.Time,
	fn func(context.Context) (T, error),
) (v T, out Outcome, err error) {
	t, err := b.admit(ctx, end)
	if err != nil {
		return v, untried, err
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		r := recover()
		if r == nil { // runtime.Goexit: nothing is known about the call
			b.finish(&t, Ignore, nil)
			return
		}
		b.finish(&t, Failure, fmt.Errorf("breaker: %s: the call panicked", b.cfg.Name))
		panic(r)
	}()
	if until, own := b.bound(ctx, end); until.IsZero() {
		v, err = fn(ctx)
	} else {
		v, err = timed(ctx, until, own, fn)
	}
	out = b.classify(ctx, &t, err)
	returned = true
	b.finish(&t, out, err)
	return v, out, err
}

// classify returns what the end of an admitted call means.
func (b *Breaker) classify(ctx context.Context, t *ticket, err error) Outcome {
	out := b.cfg.Classify(ctx, err)
	switch {
	case out < Success || out > Ignore:
		b.cfg.Logger.ErrorContext(
			ctx, "breaker: Classify returned no Outcome, the call is ignored", "breaker", b.cfg.Name, "outcome", int(out),
		)
		return Ignore
	case out == Failure && t.given > 0 && t.given < b.cfg.ShortDeadline && !errors.Is(err, ErrTimeout):
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= 0 {
			return Ignore
		}
	}
	return out
}

// bound says when an attempt must end, and whether Config.Timeout is why. It is the zero time when nothing of ours ends
// it before the caller's own deadline.
func (b *Breaker) bound(ctx context.Context, end time.Time) (until time.Time, own bool) {
	if b.cfg.Timeout > 0 {
		until, own = time.Now().Add(b.cfg.Timeout), true
	}
	if !end.IsZero() && (until.IsZero() || end.Before(until)) {
		until, own = end, false
	}
	if deadline, ok := ctx.Deadline(); ok && !deadline.After(until) {
		return time.Time{}, false
	}
	return until, own
}

func timed[T any](ctx context.Context, until time.Time, own bool, fn func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	v, err := fn(bounded)
	// By the clock, not by the context, whose timer may be late: the called service may know the deadline, and report
	// its end first.
	if err != nil && own && ctx.Err() == nil && time.Until(until) <= 0 && !errors.Is(err, ErrTimeout) {
		err = &timeoutError{err}
	}
	return v, err
}

// ended is why ctx is done, nil when it is not: its error, and the cause when that is another.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != err {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// timeoutError is ErrTimeout over what the function made of its context's end.
type timeoutError struct{ err error }

func (e *timeoutError) Error() string   { return "breaker: attempt timed out: " + e.err.Error() }
func (e *timeoutError) Unwrap() []error { return []error{ErrTimeout, e.err} }
func (e *timeoutError) Timeout() bool   { return true }
