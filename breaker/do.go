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
	if b.cfg.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.cfg.Deadline)
		defer cancel()
	}
	v, err := attempt(ctx, b, fn)
	if b.cfg.Retry.Attempts > 1 {
		b.budget.deposit()
		if err != nil {
			return retry(ctx, b, fn, v, err)
		}
	}
	return v, err
}

// DoOr is Do, and when that fails returns what fallback makes of the error.
func DoOr[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error), fallback func(context.Context, error) (T, error)) (T, error) {
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
// must be called with the call's result; further calls of it do nothing. Retry and timeouts are the caller's.
func (b *Breaker) Allow(ctx context.Context) (done func(error), err error) {
	t, err := b.admit(ctx)
	if err != nil {
		return nil, err
	}
	var ended atomic.Bool
	return func(err error) {
		if ended.CompareAndSwap(false, true) {
			b.finish(&t, b.cfg.Classify(ctx, err), err)
		}
	}, nil
}

// attempt runs fn once.
func attempt[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error)) (v T, err error) {
	t, err := b.admit(ctx)
	if err != nil {
		return v, err
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
	if b.bounded(ctx) {
		v, err = timed(ctx, b.cfg.Timeout, fn)
	} else {
		v, err = fn(ctx)
	}
	out := b.cfg.Classify(ctx, err)
	returned = true
	b.finish(&t, out, err)
	return v, err
}

// bounded says whether the attempt needs a timeout: not when the caller's deadline is earlier.
func (b *Breaker) bounded(ctx context.Context) bool {
	if b.cfg.Timeout <= 0 {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) > b.cfg.Timeout
}

func timed[T any](ctx context.Context, timeout time.Duration, fn func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := fn(bounded)
	if err != nil && bounded.Err() == context.DeadlineExceeded && ctx.Err() == nil && !errors.Is(err, ErrTimeout) {
		err = &timeoutError{err}
	}
	return v, err
}

// timeoutError is ErrTimeout over what the function made of its context's end.
type timeoutError struct{ err error }

func (e *timeoutError) Error() string   { return "breaker: attempt timed out: " + e.err.Error() }
func (e *timeoutError) Unwrap() []error { return []error{ErrTimeout, e.err} }
func (e *timeoutError) Timeout() bool   { return true }
