package breakerhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sillar-go/sillar/internal/problem"
)

// Errors of a Client, to be compared with errors.Is.
var (
	// ErrNotFound is matched by a *ResponseError of status 404.
	ErrNotFound = errors.New("breakerhttp: not found")
	// ErrConflict is matched by a *ResponseError of status 409.
	ErrConflict = errors.New("breakerhttp: conflict")
	// ErrUnauthorized is matched by a *ResponseError of status 401.
	ErrUnauthorized = errors.New("breakerhttp: unauthorized")
	// ErrForbidden is matched by a *ResponseError of status 403.
	ErrForbidden = errors.New("breakerhttp: forbidden")
	// ErrInvalid is matched by a *ResponseError of status 400 or 422.
	ErrInvalid = errors.New("breakerhttp: invalid")
	// ErrUnavailable says that the service could not answer: a *ResponseError of status 5xx or 429, or a *RequestError,
	// unless the caller cancelled or the request could not be sent (ErrLocal).
	ErrUnavailable = errors.New("breakerhttp: unavailable")
	// ErrTooLarge says that a response's body is longer than Config.MaxBody.
	ErrTooLarge = errors.New("breakerhttp: response too large")
	// ErrLocal says that a request failed on this side: its method, address, headers or trailers cannot be sent, its
	// body could not be read or has another length than announced, or a limit of ours ended the exchange. The caller
	// made the error, and the breaker does not count it.
	ErrLocal = errors.New("breakerhttp: the request cannot be sent")
	// ErrPath says that a path is not one that a request may have. No request was made.
	ErrPath = errors.New("breakerhttp: bad path")
)

// Problem is a problem document (RFC 9457) as services of this library write it.
type Problem = problem.Problem

// FieldError is what a Problem says about one field.
type FieldError = problem.FieldError

// ResponseError is an answer that is not of the 2xx kind. It matches the sentinel of its status.
type ResponseError struct {
	// Method and URL are the request's; the query, which may hold what logs should not, is left out.
	Method, URL string
	// Status is the HTTP status.
	Status int
	// Problem is the body, when it was problem+json, else nil.
	Problem *Problem
}

// Error implements error.
func (e *ResponseError) Error() string {
	s := fmt.Sprintf("breakerhttp: %s %s: %d %s", e.Method, e.URL, e.Status, http.StatusText(e.Status))
	if e.Problem != nil && e.Problem.Detail != "" {
		s += ": " + e.Problem.Detail
	}
	return s
}

// Is makes the error match the sentinel of its status.
func (e *ResponseError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound
	case ErrConflict:
		return e.Status == http.StatusConflict
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized
	case ErrForbidden:
		return e.Status == http.StatusForbidden
	case ErrInvalid:
		return e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity
	case ErrUnavailable:
		return e.Status >= 500 || e.Status == http.StatusTooManyRequests
	}
	return false
}

// Conflict reports whether the service refused because of a change by another.
func (e *ResponseError) Conflict() bool { return e.Status == http.StatusConflict }

// RequestError is a request without an answer: no connection, too slow, or the breaker did not try. It matches
// ErrUnavailable, unless the caller cancelled, and what it wraps: breaker.ErrOpen, breaker.ErrTimeout, net errors.
type RequestError struct {
	// Method and URL are the request's, without the query.
	Method, URL string
	// Err says what happened.
	Err error
}

// Error implements error.
func (e *RequestError) Error() string {
	return fmt.Sprintf("breakerhttp: %s %s: %v", e.Method, e.URL, e.Err)
}

// Unwrap returns what happened.
func (e *RequestError) Unwrap() error { return e.Err }

// Is makes the error match ErrUnavailable.
func (e *RequestError) Is(target error) bool {
	return target == ErrUnavailable && !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, ErrLocal)
}
