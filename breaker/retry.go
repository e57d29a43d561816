package breaker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// retry makes the attempts after the first, which returned v and err.
func retry[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error), v T, err error) (T, error) {
	var pauses *backoff.ExponentialBackOff
	for n := 1; ; n++ {
		if Rejected(err) && n == 1 || !b.worthAnother(ctx, err) {
			return v, err
		}
		if n >= b.cfg.Retry.Attempts {
			return v, b.gaveUp(n, err, ErrExhausted)
		}
		if refused := b.rejection(b.era.Load()); refused != nil { // no pause before a sure rejection
			return v, b.gaveUp(n, err, refused)
		}
		if !b.budget.withdraw() {
			return v, b.gaveUp(n, err, ErrBudget)
		}
		if pauses == nil {
			pauses = b.pauses()
		}
		if reason := sleep(ctx, max(jitter(pauses.NextBackOff()), askedFor(err))); reason != nil {
			return v, b.gaveUp(n, err, reason)
		}
		nv, nerr := attempt(ctx, b, fn)
		if Rejected(nerr) { // what the last real attempt said is worth more than that the next was not made
			return v, b.gaveUp(n, err, nerr)
		}
		v, err = nv, nerr
		if err == nil {
			return v, nil
		}
	}
}

func (b *Breaker) worthAnother(ctx context.Context, err error) bool {
	if b.cfg.Classify(ctx, err) != Failure || ctx.Err() != nil {
		return false
	}
	return b.cfg.Retry.If == nil || b.cfg.Retry.If(err)
}

func (b *Breaker) gaveUp(attempts int, err, reason error) error {
	return &RetryError{Name: b.cfg.Name, Attempts: attempts, Err: err, Reason: reason}
}

// pauses makes the ceilings of the pauses; the jitter is ours, so that no pause exceeds Max.
func (b *Breaker) pauses() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(b.cfg.Retry.Initial),
		backoff.WithMaxInterval(b.cfg.Retry.Max),
		backoff.WithMultiplier(b.cfg.Retry.Multiplier),
		backoff.WithRandomizationFactor(0),
		backoff.WithMaxElapsedTime(0))
}

// jitter draws evenly between nothing and the ceiling, but never quite nothing: no loop runs hot.
func jitter(ceiling time.Duration) time.Duration {
	if ceiling <= 1 {
		return 1
	}
	return 1 + time.Duration(rand.Int64N(int64(ceiling)))
}

// askedFor is the pause that the failed call asked for, as HTTP's Retry-After does.
func askedFor(err error) time.Duration {
	var r interface{ RetryAfter() time.Duration }
	if errors.As(err, &r) {
		return r.RetryAfter()
	}
	return 0
}

// sleep pauses, or returns at once when the pause would pass the deadline.
func sleep(ctx context.Context, d time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// budget lets retries be a part of the calls: every call pays in, every retry draws a whole. It is nil when off.
type budget struct {
	millis *atomic.Int64
	share  int64
}

const (
	budgetStart = 10_000 // ten retries, so that rare calls may be retried too
	budgetMax   = 100_000
)

func newBudget(part float64) budget {
	if part < 0 {
		return budget{}
	}
	b := budget{millis: new(atomic.Int64), share: int64(part * 1000)}
	b.millis.Store(budgetStart)
	return b
}

func (b budget) deposit() {
	if b.millis != nil && b.millis.Load() < budgetMax {
		b.millis.Add(b.share)
	}
}

func (b budget) withdraw() bool {
	if b.millis == nil {
		return true
	}
	if b.millis.Add(-1000) < 0 {
		b.millis.Add(1000)
		return false
	}
	return true
}
