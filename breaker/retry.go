package breaker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// retry makes the attempts after the first, which returned v and err and meant out.
func retry[T any](
	ctx context.Context,
	b *Breaker,
	end time.Time,
	fn func(context.Context) (T, error),
	v T,
	out Outcome,
	err error,
) (T, error) {
	for n := 1; ; n++ {
		if out != Failure || b.cfg.Retry.If != nil && !b.cfg.Retry.If(err) {
			return v, err
		}
		if reason := ended(ctx); reason != nil {
			if errors.Is(err, ctx.Err()) {
				return v, err
			}
			return v, b.gaveUp(n, err, reason)
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
		if reason := sleep(ctx, end, max(b.cfg.Retry.Backoff.Delay(n), askedFor(err))); reason != nil {
			return v, b.gaveUp(n, err, reason)
		}
		nv, nout, nerr := attempt(ctx, b, end, fn)
		if nout == untried { // what the last real attempt said is worth more than that the next was not made
			return v, b.gaveUp(n, err, nerr)
		}
		v, out, err = nv, nout, nerr
		if err == nil {
			return v, nil
		}
	}
}

func (b *Breaker) gaveUp(attempts int, err, reason error) error {
	return &RetryError{Name: b.cfg.Name, Attempts: attempts, Err: err, Reason: reason}
}

// askedFor is the pause that the failed call asked for, as HTTP's Retry-After does.
func askedFor(err error) time.Duration {
	var r interface{ RetryAfter() time.Duration }
	if errors.As(err, &r) {
		return r.RetryAfter()
	}
	return 0
}

// sleep pauses, or returns at once when the pause would pass the deadline of ctx, or end.
func sleep(ctx context.Context, end time.Time, d time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d || !end.IsZero() && time.Until(end) < d {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ended(ctx)
	case <-timer.C:
		return nil
	}
}

// budget lets retries be a part of the calls: every call pays in, every retry draws a whole. It is nil when off.
type budget struct {
	micros *atomic.Int64
	share  int64
}

const (
	budgetRetry = 1_000_000
	budgetStart = 10 * budgetRetry // so that rare calls may be retried too
	budgetMax   = 100 * budgetRetry
)

func newBudget(part float64) budget {
	if part < 0 {
		return budget{}
	}
	b := budget{micros: new(atomic.Int64), share: int64(part * budgetRetry)}
	b.micros.Store(budgetStart)
	return b
}

func (b budget) deposit() {
	if b.micros != nil && b.micros.Load() < budgetMax {
		b.micros.Add(b.share)
	}
}

func (b budget) withdraw() bool {
	if b.micros == nil {
		return true
	}
	if b.micros.Add(-budgetRetry) < 0 {
		b.micros.Add(budgetRetry)
		return false
	}
	return true
}
