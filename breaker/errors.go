package breaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrOpen is matched by *OpenError: the call was not tried. It is gobreaker.ErrOpenState too.
	ErrOpen = fmt.Errorf("breaker: open: %w", gobreaker.ErrOpenState)
	// ErrFull says that the bulkhead has no place: the call was not tried.
	ErrFull error = notAttemptedError("breaker: bulkhead full")
	// ErrLimited says that the rate limit is reached: the call was not tried.
	ErrLimited error = notAttemptedError("breaker: rate limit reached")
	// ErrOverloaded says that the adaptive limit is reached: the call was not tried.
	ErrOverloaded error = notAttemptedError("breaker: adaptive limit reached")
	// ErrTimeout says that an attempt took longer than Config.Timeout. It is context.DeadlineExceeded too.
	ErrTimeout = fmt.Errorf("breaker: attempt timed out: %w", context.DeadlineExceeded)
	// ErrExhausted is the reason of a *RetryError after the last attempt.
	ErrExhausted = errors.New("breaker: attempts exhausted")
	// ErrBudget is the reason of a *RetryError when too many calls are retries already.
	ErrBudget = errors.New("breaker: retry budget spent")
)

// IsRejection reports whether err says that a call was not tried. A *RetryError does not, also when a rejection is its
// reason: attempts were made.
func IsRejection(err error) bool {
	switch e := err.(type) {
	case *OpenError:
		return true
	case *RetryError:
		return false
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), IsRejection)
	}
	if err == nil || err == ErrOpen || err == ErrFull || err == ErrLimited || err == ErrOverloaded {
		return err != nil
	}
	return IsRejection(errors.Unwrap(err))
}

// OpenError says that the breaker is open, or half-open with all probes out. It matches ErrOpen. It does not match
// LastErr: that another call timed out does not mean that this one did.
type OpenError struct {
	// Name is the breaker's.
	Name string
	// RetryAfter is how long until the next probe is admitted; 0 when a probe is out.
	RetryAfter time.Duration
	// LastErr is the failure that opened the breaker, nil when it was opened by hand.
	LastErr error
}

// Error implements error.
func (e *OpenError) Error() string {
	if e.RetryAfter > 0 {
		return fmt.Sprintf("breaker: %s is open for another %s", e.Name, e.RetryAfter.Round(time.Millisecond))
	}
	return fmt.Sprintf("breaker: %s is open", e.Name)
}

// Is makes the error match ErrOpen and gobreaker.ErrOpenState.
func (e *OpenError) Is(target error) bool {
	return target == ErrOpen || target == gobreaker.ErrOpenState
}

// NotAttempted declares to callers such as package saga that the call was not tried, and how long to wait before the
// next one.
func (e *OpenError) NotAttempted() (retryAfter time.Duration, ok bool) { return e.RetryAfter, true }

// NotAttempted declares that attempts were made, whatever the reason for the end of them.
func (e *RetryError) NotAttempted() (retryAfter time.Duration, ok bool) { return 0, false }

// notAttemptedError is a rejection without data.
type notAttemptedError string

func (e notAttemptedError) Error() string                          { return string(e) }
func (notAttemptedError) NotAttempted() (_ time.Duration, ok bool) { return 0, true }

// RetryError says that no further attempt is made. It matches both the last error and the reason.
type RetryError struct {
	// Name is the breaker's.
	Name string
	// Attempts is how many were made.
	Attempts int
	// Err is what the last one returned.
	Err error
	// Reason is ErrExhausted, ErrBudget, an *OpenError, or why the context ended or would have.
	Reason error
}

// Error implements error.
func (e *RetryError) Error() string {
	return fmt.Sprintf("breaker: %s gave up after %d attempts (%v): %v", e.Name, e.Attempts, e.Reason, e.Err)
}

// Unwrap returns the last error and the reason.
func (e *RetryError) Unwrap() []error { return []error{e.Err, e.Reason} }
