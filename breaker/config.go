package breaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// Config says how calls are guarded. The zero Config is useful: a timeout and a breaker. In every field 0 is the
// default and a negative value is off; New refuses it where nothing can be off: Window, OpenFor, Probes, Burst, and of
// Retry Initial, Max and Multiplier.
type Config struct {
	// Name tells breakers apart in errors and hooks. Default "default".
	Name string

	// Timeout bounds one attempt. Default 10 s. The function's context ends then; it must return then. A parent context
	// with an earlier deadline makes the timeout cost nothing.
	Timeout time.Duration
	// Deadline bounds all attempts together. Default off.
	Deadline time.Duration

	// Failures opens the breaker after so many failures in a row. Default 5.
	Failures int
	// FailureRate opens the breaker when so large a part of the calls in Window failed, in (0, 1]. Default off.
	FailureRate float64
	// SlowRate opens the breaker when so large a part of the calls in Window took SlowCall or longer. Default off.
	SlowRate float64
	// SlowCall is what counts as slow. Default 5 s.
	SlowCall time.Duration
	// Window is over what time rates are taken. Default 60 s. A longer one reacts later and errs less.
	Window time.Duration
	// MinCalls is how many calls Window must hold before a rate counts. Default 20.
	MinCalls int
	// OpenFor is how long the breaker rejects before it probes. Default 30 s. The time doubles each time that a probe
	// fails, up to MaxOpenFor, with a tenth of it at random, so that the instances of a fleet do not probe in step. It
	// is OpenFor again once the breaker has closed.
	OpenFor time.Duration
	// MaxOpenFor bounds the growth of OpenFor. Default four times OpenFor: longer spares a service that is down,
	// shorter finds out sooner that it is back. OpenFor means no growth.
	MaxOpenFor time.Duration
	// Probes is how many calls half-open admits, and how many of them in a row close the breaker. Default 1.
	Probes int
	// ProbeTimeout is after how long a probe that has not ended gives its place back. Default twice Timeout, at least
	// 30 s.
	ProbeTimeout time.Duration
	// ObserveOnly counts, changes state and calls the hooks, but never rejects and lets no call wait for a place: to
	// try limits on live traffic. OnCall gets the rejection that would have been, and then the attempt.
	ObserveOnly bool

	// Bulkhead bounds the calls at work at once. Default off.
	Bulkhead int
	// BulkheadWait is how long a call waits for a place. Default: not at all.
	BulkheadWait time.Duration
	// Adaptive bounds the calls at work at once by a limit that follows the latency. Default off. With a Bulkhead too,
	// the lower of both limits rejects.
	Adaptive AdaptiveLimit
	// Rate bounds the calls a second. Default off. Calls above it are rejected with ErrLimited.
	Rate float64
	// Burst is how many calls Rate lets through at once. Default 1 or Rate, whichever is more.
	Burst int

	// Retry says whether and how failed attempts are repeated. The zero value: not.
	Retry Retry

	// ShortDeadline is the least time that a caller must have given a call for the passing of the caller's own deadline
	// to count as a failure. Below it the call is ignored: else a few callers with 2 ms would open the breaker of a
	// healthy service for all. Default 1 s, or Timeout when that is less. When all callers give less, and the service
	// hangs, only a smaller value lets the breaker open. Negative: every deadline that passes counts.
	ShortDeadline time.Duration

	// Classify returns what a finished call means; ctx is that of the caller. A value that is no Outcome counts as
	// Ignore. Default DefaultClassify.
	Classify func(ctx context.Context, err error) Outcome

	// OnStateChange is called after every change of state.
	OnStateChange func(StateChange)
	// OnCall is called after every attempt and every rejection. At most 65,536 calls wait for a slow hook; further ones
	// are dropped, so that a stuck hook fills no memory. Changes of state are never dropped.
	OnCall func(Call)
	// OnLimitChange is called after every change of the limit of Adaptive, and when the breaker is made. It is dropped
	// as OnCall is.
	OnLimitChange func(LimitChange)
	// Logger logs hooks that panic, and a Classify that returns no Outcome. Default slog.Default().
	Logger *slog.Logger
}

// Retry says how failed attempts are repeated. Only what Classify calls a Failure is repeated, rejections never are.
type Retry struct {
	// Attempts is the number of attempts, the first included. 0 and 1 mean no retry.
	Attempts int
	// Backoff is the pause between attempts. Default Exponential(100*time.Millisecond, 10*time.Second).
	Backoff Backoff
	// Budget is the part of calls that may be retries, so that an outage is not amplified. Default 0.1; some retries
	// are always allowed to begin with. Negative: no bound.
	Budget float64
	// If says whether an error is worth another attempt. Default: all failures are.
	If func(err error) bool
}

// Backoff computes the pause after a failed attempt. Make one with Exponential or Constant.
type Backoff = backoff.Backoff

// Exponential returns a Backoff that doubles from initial up to max, with jitter.
func Exponential(initial, max time.Duration) Backoff { //nolint:predeclared // the field's word
	return backoff.Exponential(initial, max)
}

// Constant returns a Backoff that pauses for exactly d after each attempt.
func Constant(d time.Duration) Backoff { return backoff.Constant(d) }

// Outcome is what a finished call means to the breaker.
type Outcome int

// The outcomes.
const (
	// Success resets the failures in a row, and closes a half-open breaker.
	Success Outcome = iota
	// Failure counts towards opening.
	Failure
	// Ignore counts as nothing: the call says nothing about what was called.
	Ignore
)

// String returns "success", "failure" or "ignore".
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Ignore:
		return "ignore"
	}
	return fmt.Sprintf("outcome(%d)", int(o))
}

// DefaultClassify takes nil for Success, the end of ctx by cancellation and a rejection by another breaker for Ignore,
// and everything else for Failure: a deadline of the caller's that passed in mid-flight too, since most slow
// dependencies are first seen that way. Config.ShortDeadline keeps short ones from counting.
func DefaultClassify(ctx context.Context, err error) Outcome {
	switch {
	case err == nil:
		return Success
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled), IsRejection(err):
		return Ignore
	}
	return Failure
}

func (c Config) withDefaults() (Config, error) {
	c.Name = cmp.Or(c.Name, "default")
	if err := c.check(); err != nil {
		return c, err
	}
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Failures = cmp.Or(c.Failures, 5)
	c.SlowCall = cmp.Or(c.SlowCall, 5*time.Second)
	c.Window = cmp.Or(c.Window, time.Minute)
	c.MinCalls = cmp.Or(c.MinCalls, 20)
	c.OpenFor = cmp.Or(c.OpenFor, 30*time.Second)
	c.Probes = cmp.Or(c.Probes, 1)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, max(30*time.Second, 2*c.Timeout))
	c.Adaptive.setDefaults()
	c.Burst = cmp.Or(c.Burst, int(max(1, min(c.Rate, 1<<30))))
	c.Retry.Backoff = cmp.Or(c.Retry.Backoff, Exponential(100*time.Millisecond, 10*time.Second))
	c.Retry.Budget = cmp.Or(c.Retry.Budget, 0.1)
	shortDeadline := time.Second
	if c.Timeout > 0 {
		shortDeadline = min(shortDeadline, c.Timeout)
	}
	c.ShortDeadline = cmp.Or(c.ShortDeadline, shortDeadline)
	c.MaxOpenFor = cmp.Or(c.MaxOpenFor, 4*min(c.OpenFor, math.MaxInt64/4))
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Classify == nil {
		c.Classify = DefaultClassify
	}
	return c, nil
}

// check returns an error that names the first field that makes no sense.
func (c Config) check() error {
	for _, f := range []struct {
		name  string
		value any
		fits  bool // false for NaN
		want  string
	}{
		{"FailureRate", c.FailureRate, c.FailureRate <= 1, "at most 1"},
		{"SlowRate", c.SlowRate, c.SlowRate <= 1, "at most 1"},
		{"Window", c.Window, c.Window >= 0, "at least 0"},
		{"MaxOpenFor", c.MaxOpenFor, c.MaxOpenFor == 0 || c.MaxOpenFor >= c.OpenFor, "at least OpenFor"},
		{"OpenFor", c.OpenFor, c.OpenFor >= 0, "at least 0; ObserveOnly never rejects"},
		{"Probes", c.Probes, c.Probes >= 0, "at least 0"},
		{"Rate", c.Rate, math.Abs(c.Rate) <= math.MaxFloat64, "a finite number"},
		{"Burst", c.Burst, c.Burst >= 0, "at least 0"},
		{"Adaptive.Min", c.Adaptive.Min, c.Adaptive.Min >= 0 && (c.Adaptive.Max <= 0 || c.Adaptive.Min <= c.Adaptive.Max),
			"at least 0 and at most Max"},
		{"Adaptive.Initial", c.Adaptive.Initial, c.Adaptive.Initial == 0 || c.Adaptive.Max <= 0 ||
			c.Adaptive.Initial >= max(1, c.Adaptive.Min) && c.Adaptive.Initial <= c.Adaptive.Max, "between Min and Max"},
		{"Retry.Budget", c.Retry.Budget, c.Retry.Budget <= 1, "at most 1"},
	} {
		if !f.fits {
			return fmt.Errorf("breaker: %s: Config.%s is %v, want %s", c.Name, f.name, f.value, f.want)
		}
	}
	return nil
}
