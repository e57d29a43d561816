package messaging

import (
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// Retry says how failed messages are tried again.
type Retry struct {
	// Attempts is how many are made before the message becomes a dead letter. Default 5; negative: no limit.
	Attempts int
	// Backoff is the pause between them. Default Exponential(time.Second, time.Minute).
	Backoff Backoff
}

// Backoff computes the pause after an attempt. Make one with Exponential or Constant.
type Backoff struct{ e backoff.Exponential }

// Exponential doubles the pause from initial up to most, with jitter.
func Exponential(initial, most time.Duration) Backoff {
	return Backoff{backoff.Exponential{Initial: initial, Max: most}}
}

// Constant pauses for d each time.
func Constant(d time.Duration) Backoff {
	return Backoff{backoff.Exponential{Initial: d, Max: d, Multiplier: 1, NoJitter: true}}
}

// Delay returns the pause after attempt n, which counts from 1.
func (b Backoff) Delay(n int) time.Duration {
	if b == (Backoff{}) {
		b = Exponential(time.Second, time.Minute)
	}
	return b.e.Delay(n)
}
