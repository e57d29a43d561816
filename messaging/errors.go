package messaging

import (
	"errors"
	"fmt"
	"time"
)

// Errors of publishing, to be compared with errors.Is.
var (
	// ErrUnroutable says that no queue takes the topic: the broker returned the message.
	ErrUnroutable = errors.New("messaging: no queue takes the message")
	// ErrNacked says that the broker refused the message.
	ErrNacked = errors.New("messaging: the broker refused the message")
	// ErrUnknownOutcome says that the connection was lost before the broker confirmed: the message may or may not have
	// arrived.
	ErrUnknownOutcome = errors.New("messaging: it is not known whether the message arrived")
	// ErrBlocked says that the broker takes no messages at present, such as for lack of memory or disk.
	ErrBlocked = errors.New("messaging: the broker takes no messages at present")
	// ErrClosed says that the broker's client has been closed, or that a delivery's channel is gone.
	ErrClosed = errors.New("messaging: closed")
	// ErrInvalid says that a message is malformed: no topic, or a payload that does not encode.
	ErrInvalid = errors.New("messaging: malformed message")
	// ErrNoHandler is the reason of a dead letter that no handler of its group took in all the attempts of
	// GroupConfig.Unhandled.
	ErrNoHandler = errors.New("messaging: no handler takes the message")
	// ErrAttempts is the reason of a dead letter whose attempts were used up before this one, such as by handlers that
	// ran longer than the broker lets them: it comes to no handler any more.
	ErrAttempts = errors.New("messaging: the attempts are used up")
	// ErrDecode is the reason of a dead letter whose body does not decode.
	ErrDecode = errors.New("messaging: the body does not decode")
	// ErrPanic is matched by the error of a handler that panicked, or ended its goroutine (runtime.Goexit).
	ErrPanic = errors.New("messaging: a handler panicked")
	// ErrDrain is returned by Run when handlers went on after their context had been cancelled. Their messages are
	// given back.
	ErrDrain = errors.New("messaging: handlers did not end in time")
)

// BatchError says for each message of a batch what became of it. It matches every error it holds.
type BatchError struct {
	// Errors has an entry a message, nil where it was confirmed.
	Errors []error
}

// Error implements error.
func (e *BatchError) Error() string {
	n, first := 0, error(nil)
	for _, err := range e.Errors {
		if err != nil {
			n++
			if first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("messaging: %d of %d messages were not published, first: %v", n, len(e.Errors), first)
}

// Unwrap returns the errors.
func (e *BatchError) Unwrap() []error {
	var all []error
	for _, err := range e.Errors {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

type permanentError struct{ err error }

func (e permanentError) Error() string { return e.err.Error() }
func (e permanentError) Unwrap() error { return e.err }

// Permanent marks an error that another attempt cannot mend: the message becomes a dead letter at once.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

type retryAfterError struct {
	err error
	d   time.Duration
}

func (e retryAfterError) Error() string { return e.err.Error() }
func (e retryAfterError) Unwrap() error { return e.err }

// RetryAfter says when to try again, in place of the group's backoff. The attempt counts. Over RabbitMQ the pause is
// rounded up to a step, at most by half of it or a day, and longer ones than 28 days are made of several.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return retryAfterError{err, max(d, 0)}
}
