// Package backoff computes the pauses between attempts: exponential growth with jitter
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). It is the only implementation in the
// library; breaker, saga and messaging alias its types.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retry is a retry policy.
type Retry struct {
	// Attempts is the number of attempts, the first included. Each package states its default; negative: no limit.
	Attempts int
	// Backoff is the pause between attempts. Each package states its default.
	Backoff Backoff
}

// Backoff computes the pause after a failed attempt. It is an immutable value without state: it can be compared and
// shared. The zero value stands for the default of the field that holds it.
type Backoff struct {
	initial, max time.Duration
	constant     bool
}

// Exponential returns a Backoff whose ceiling is initial after the first attempt and doubles after each further one,
// up to max. The pause is drawn evenly between a tenth of the ceiling and the ceiling, so that callers that failed
// together do not retry together. An initial of 0 or less counts as 100 ms; a max below initial counts as initial.
func Exponential(initial, max time.Duration) Backoff { //nolint:predeclared // the field's word
	if initial <= 0 {
		initial = 100 * time.Millisecond
	}
	if max < initial {
		max = initial
	}
	return Backoff{initial: initial, max: max}
}

// Constant returns a Backoff that pauses for exactly d after each attempt. A negative d counts as 0.
func Constant(d time.Duration) Backoff {
	if d < 0 {
		d = 0
	}
	return Backoff{initial: d, max: d, constant: true}
}

// Ceiling returns the longest pause after attempt n. The first attempt is 1; a smaller n counts as 1.
func (b Backoff) Ceiling(n int) time.Duration {
	if b.constant {
		return b.max
	}
	if b.initial == 0 { // the zero value
		b = Exponential(0, 30*time.Second)
	}
	intervals := backoff.ExponentialBackOff{
		InitialInterval: b.initial,
		Multiplier:      2,
		MaxInterval:     b.max,
		Stop:            backoff.Stop,
		Clock:           backoff.SystemClock,
	}
	intervals.Reset()
	ceiling := intervals.NextBackOff()
	for i := 1; i < n && ceiling < b.max; i++ { // at most 63 steps: the interval doubles until it reaches max
		ceiling = intervals.NextBackOff()
	}
	return ceiling
}

// Delay returns the pause after attempt n. The first attempt is 1; a smaller n counts as 1.
func (b Backoff) Delay(n int) time.Duration {
	ceiling := b.Ceiling(n)
	if b.constant {
		return ceiling
	}
	floor := max(ceiling/10, 1) // never 0: no caller retries in a busy loop
	return floor + time.Duration(rand.Int64N(int64(ceiling-floor)+1))
}

// Sleep pauses for d or until ctx ends, and then returns the cause of the context's end. It returns
// context.DeadlineExceeded at once when d reaches past the context's deadline.
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
