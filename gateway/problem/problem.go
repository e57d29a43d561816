// Package problem answers HTTP requests with errors in the form of RFC 9457, application/problem+json, and reads JSON
// bodies. It is for the services behind a gateway as well as for the gateway.
//
//	var problems = problem.NewMapper(
//		problem.Rule{Err: repository.ErrNotFound, Status: 404, Slug: "not-found", Detail: "there is no such thing"},
//		problem.Rule{Err: repository.ErrUnique, Status: 409, Slug: "conflict", Detail: "it is there already"},
//		problem.Rule{Err: sqldb.ErrBusy, Status: 503, Slug: "busy", Detail: "try again", RetryAfter: time.Second},
//	)
//
//	func create(w http.ResponseWriter, r *http.Request) {
//		var in Product
//		err := problem.Decode(w, r, &in, 1<<20)
//		if err == nil {
//			err = store(r.Context(), in)
//		}
//		if err != nil {
//			problems.Write(r.Context(), w, err)
//			return
//		}
//		...
//	}
//
// # Guarantees
//
//   - A client reads only what was written for it: the text of an error without a rule is logged and not sent.
//   - The document has the correlation id of the context, by which the log is found.
//   - Errors of package breaker, and others that declare that nothing was tried, are 503 with Retry-After without a
//     rule; conflicts of package repository are 409.
//
// # What it does not do
//
// It validates no values: a service says what is wrong with a field by Problem.With.
package problem

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/sillar-go/sillar/internal/problem"
)

// ContentType is the media type of a problem document.
const ContentType = problem.ContentType

// Problem is a problem document. It is an error, too: a Mapper writes one that it finds as it is.
type Problem = problem.Problem

// FieldError says what is wrong with one field of a request.
type FieldError = problem.FieldError

// New makes a problem of the given status. slug completes the type URI and is stable: clients may compare it. detail is
// for people, and must contain nothing confidential.
func New(status int, slug, detail string) *Problem { return problem.New(status, slug, detail) }

// Rule says which problem an error is.
type Rule struct {
	// Err is what errors.Is looks for. Required.
	Err error
	// Status, Slug and Detail are those of the problem. Required.
	Status int
	Slug   string
	Detail string
	// RetryAfter is the header of that name, in whole seconds. Default: none, for status 503 one second.
	RetryAfter time.Duration
}

// Mapper turns errors into problems. It is safe for concurrent use.
type Mapper struct {
	rules  []Rule
	logger *slog.Logger
}

// NewMapper returns a Mapper of rules, of which the first that matches counts. It logs to slog.Default what no rule
// knows.
func NewMapper(rules ...Rule) *Mapper { return &Mapper{rules: rules} }

// WithLogger returns a Mapper that logs to another logger.
func (m *Mapper) WithLogger(l *slog.Logger) *Mapper { return &Mapper{m.rules, l} }

// Problem returns the problem that an error is, and when a client may try again, 0 for no hint. known is false for one
// of status 500 that no rule has made. The order: a *Problem in err, the rules, deadlines and cancellations, errors
// that declare that nothing was tried or that another write was first.
func (m *Mapper) Problem(err error) (p *Problem, retryAfter time.Duration, known bool) {
	var own *Problem
	if errors.As(err, &own) {
		return own, 0, true
	}
	for _, r := range m.rules {
		if errors.Is(err, r.Err) {
			after := r.RetryAfter
			if r.Status == http.StatusServiceUnavailable {
				after = cmp.Or(after, time.Second)
			}
			return New(r.Status, r.Slug, r.Detail), after, true
		}
	}
	var tried interface {
		NotAttempted() (retryAfter time.Duration, ok bool)
	}
	var conflict interface{ Conflict() bool }
	switch {
	case errors.As(err, &tried):
		if after, ok := tried.NotAttempted(); ok {
			return New(http.StatusServiceUnavailable, "unavailable", "a service that is needed does not answer: try again"),
				cmp.Or(after, time.Second), true
		}
	case errors.As(err, &conflict) && conflict.Conflict():
		return New(http.StatusConflict, "conflict", "it was changed meanwhile: read it again"), 0, true
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return New(http.StatusServiceUnavailable, "unavailable", "it took too long: try again"), time.Second, true
	}
	return New(http.StatusInternalServerError, "internal",
		"something went wrong here; the correlation id helps to find out what"), 0, false
}

// Write answers with the problem that err is, and logs an error that no rule knows.
func (m *Mapper) Write(ctx context.Context, w http.ResponseWriter, err error) {
	p, after, known := m.Problem(err)
	if !known {
		cmp.Or(m.logger, slog.Default()).ErrorContext(ctx, "problem: a request failed", "error", err)
	}
	if after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	}
	p.Write(ctx, w)
}
