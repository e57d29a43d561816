// Package backoff computes the pauses between attempts: exponential growth with full jitter
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), one implementation for every package
// of the library, which expose it as small value types of their own.
package backoff

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Defaults for fields that are 0.
const (
	DefaultInitial    = 100 * time.Millisecond
	DefaultMax        = 30 * time.Second
	DefaultMultiplier = 2.0
)

// Exponential is a value: it holds no state and may be shared. The zero value is useful.
type Exponential struct {
	// Initial is the ceiling of the first pause. 0 means 100ms.
	Initial time.Duration
	// Max bounds every pause, after jitter too. 0 means 30s.
	Max time.Duration
	// Multiplier is the growth a step. 0 means 2; less than 1 counts as 1.
	Multiplier float64
	// NoJitter makes the pauses exact: for tests and for delays that are queue names.
	NoJitter bool
}

// Ceiling returns the largest pause after attempt number n, which counts from 1. It never exceeds Max, is never
// negative and never overflows, whatever the fields hold.
func (e Exponential) Ceiling(n int) time.Duration {
	initial, limit, mult := e.Initial, e.Max, e.Multiplier
	if initial <= 0 {
		initial = DefaultInitial
	}
	if limit <= 0 {
		limit = DefaultMax
	}
	if mult == 0 {
		mult = DefaultMultiplier
	}
	if !(mult >= 1) { // NaN too
		mult = 1
	}
	if n < 1 {
		n = 1
	}
	d := float64(initial) * math.Pow(mult, float64(n-1))
	if !(d < float64(limit)) { // +Inf and NaN too
		return limit
	}
	return time.Duration(d)
}

// Delay returns the pause after attempt number n, which counts from 1. With jitter it is spread evenly between a
// tenth of the ceiling and the ceiling, so that a crowd disperses and no loop runs hot.
func (e Exponential) Delay(n int) time.Duration {
	c := e.Ceiling(n)
	if e.NoJitter {
		return c
	}
	floor := c / 10
	return floor + time.Duration(rand.Int64N(int64(c-floor)+1))
}

// Sleep pauses for d or until ctx ends, and then returns the cause of the context's end. It returns at once with
// context.DeadlineExceeded when d reaches past the context's deadline: such a pause could only end in failure.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return context.DeadlineExceeded
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
