package messaging

import (
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// Retry is the retry policy of a group. Attempts is the number of attempts, the first included, before a message
// becomes a dead letter: default 5; negative: no limit. Backoff is the pause between attempts: default
// Exponential(time.Second, time.Minute).
type Retry = backoff.Retry

// Backoff computes the pause after a failed attempt. Make one with Exponential or Constant.
type Backoff = backoff.Backoff

// Exponential returns a Backoff that doubles from initial up to max, with jitter.
func Exponential(initial, max time.Duration) Backoff { //nolint:predeclared // the field's word
	return backoff.Exponential(initial, max)
}

// Constant returns a Backoff that pauses for exactly d after each attempt.
func Constant(d time.Duration) Backoff { return backoff.Constant(d) }
