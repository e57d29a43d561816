package saga

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// notAttempted is what an error implements that declares whether a call was tried at all. Breaker errors do.
type notAttempted interface {
	// NotAttempted reports whether the call was not tried, and how long to wait before the next try; 0 if unknown.
	NotAttempted() (retryAfter time.Duration, ok bool)
}

type notAttemptedError struct {
	err        error
	retryAfter time.Duration
}

func (e notAttemptedError) Error() string                       { return e.err.Error() }
func (e notAttemptedError) Unwrap() error                       { return e.err }
func (e notAttemptedError) NotAttempted() (time.Duration, bool) { return e.retryAfter, true }

// NotAttempted marks an error of a call that was never tried, such as one that a rate limit refused. The step is tried
// again after retryAfter, or after its usual pause where that is 0. No attempt is used up and nothing is in doubt. Any
// error with a method NotAttempted() (retryAfter time.Duration, ok bool) has the same meaning, such as those of package
// breaker.
func NotAttempted(err error, retryAfter time.Duration) error {
	if err == nil {
		return nil
	}
	return notAttemptedError{err, retryAfter}
}

// maxRetryAfter bounds what an error can ask for.
const maxRetryAfter = time.Hour

func asNotAttempted(err error) (retryAfter time.Duration, ok bool) {
	var n notAttempted
	if isRejected(err) || errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &n) {
		return 0, false
	}
	retryAfter, ok = n.NotAttempted()
	return min(max(retryAfter, 0), maxRetryAfter), ok
}

// HTTPError marks err by the status code of a response to an idempotent request; err describes the response.
//
//   - 2xx: nil.
//   - 425 and 429, and 503 with a retryAfter (the header Retry-After): not attempted, see NotAttempted.
//   - 408, 409 (a request with the same key is in progress) and any other 5xx but 501 and 505: in doubt, err as it is.
//   - Everything else: rejected, see Reject. That the server refused it is known.
func HTTPError(status int, retryAfter time.Duration, err error) error {
	switch {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusTooEarly, status == http.StatusTooManyRequests,
		status == http.StatusServiceUnavailable && retryAfter > 0:
		return NotAttempted(err, retryAfter)
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		return Reject(err)
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status >= 500, status < 200:
		return err
	}
	return Reject(err)
}

// GRPCError marks err by the status code of a gRPC call: uint32(status.Code(err)).
//
//   - OK: nil.
//   - ResourceExhausted: not attempted, see NotAttempted.
//   - InvalidArgument, NotFound, AlreadyExists, PermissionDenied, FailedPrecondition, OutOfRange, Unimplemented and
//     Unauthenticated: rejected, see Reject.
//   - Everything else, such as Unavailable and DeadlineExceeded: in doubt, err as it is.
func GRPCError(code uint32, err error) error {
	switch code {
	case 0:
		return nil
	case 8:
		return NotAttempted(err, 0)
	case 3, 5, 6, 7, 9, 11, 12, 16:
		return Reject(err)
	}
	return err
}
