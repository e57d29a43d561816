package breakerhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/internal/spanevent"
	"github.com/sillar-go/sillar/internal/httpcheck"
)

// What is read of a response that is not returned, so that its connection can be used again: beyond that a new
// connection is cheaper.
const (
	drainBytes = 256 << 10
	drainTime  = time.Second
)

// exchange is one RoundTrip: the attempts of one request.
type exchange struct {
	t          *Transport
	req        *http.Request
	repeatable bool
	guard      *breaker.Breaker
	key        string // of guard, in its registry
	attempts   int
	last       *http.Response // of the attempt before
	kind       string         // of the error of the attempt before
}

// attempt sends the request once. Its context outlives it, until the response's body is closed.
func (e *exchange) attempt(ctx context.Context) (*http.Response, error) {
	e.attempts++
	if e.last != nil {
		drain(e.last)
		e.last = nil
	}
	if e.attempts > 1 {
		spanevent.Retry(ctx, e.guard.Name(), e.attempts, e.kind)
	}
	actx, cancel := context.WithCancelCause(ctx)
	timer := e.t.startTimer(ctx, cancel)
	var s *sending
	if e.hedgeable() {
		s = e.sendHedged(actx)
	} else {
		s = e.sendOnce(actx)
	}
	res, err := s.res, s.err
	late := timer != nil && !timer.Stop()
	if late && err == nil { // the header came with the timeout, which has cut the body
		_ = res.Body.Close()
		res, err = nil, breaker.ErrTimeout
	}
	if err != nil && late && ctx.Err() == nil && !errors.Is(err, ErrLocal) {
		err = fmt.Errorf("breakerhttp: %s %s: %w", e.req.Method, e.req.URL.Host, breaker.ErrTimeout)
	}
	if _, unmade := err.(*attemptError); unmade { //nolint:errorlint // only our own, which no transport returns
		cancel(nil)
		return nil, err
	}
	if err != nil && ctx.Err() == nil && (s.body.Failed() || httpcheck.Local(err) || errors.Is(err, ErrLocal)) {
		cancel(nil)
		return nil, localError(err)
	}
	out := s.outcome
	if !s.judged || late {
		out = e.t.cfg.Classify(ctx, res, err)
	}
	if err != nil {
		cancel(nil)
		e.kind = spanevent.Kind(err)
		return nil, &attemptError{error: err, outcome: out, repeatable: e.repeatable}
	}
	res.Body = releasing(res.Body, func() { cancel(nil) })
	if out == breaker.Success {
		return res, nil
	}
	e.last, e.kind = res, strconv.Itoa(res.StatusCode)
	return res, &attemptError{
		error: &StatusError{Host: e.req.URL.Host, Status: res.StatusCode}, outcome: out,
		repeatable: e.repeatable && res.StatusCode != http.StatusNotImplemented &&
			res.StatusCode != http.StatusHTTPVersionNotSupported,
		pause: retryAfter(res.Header.Get("Retry-After"), e.t.cfg.MaxRetryAfter),
	}
}

// sendOnce sends the request on the caller's goroutine.
func (e *exchange) sendOnce(ctx context.Context) *sending {
	req, body, err := e.request(ctx, e.attempts > 1)
	if err != nil {
		return &sending{err: err}
	}
	res, err := e.send(req) //nolint:bodyclose // the caller gets it
	return &sending{body: body, res: res, err: err}
}

// send sends req, and fills in what a base transport may leave out and http.Client forgives: those of tests often do.
func (e *exchange) send(req *http.Request) (*http.Response, error) {
	res, err := e.t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res == nil {
		return nil, errors.New("breakerhttp: the base transport returned neither a response nor an error")
	}
	if res.Body == nil {
		res.Body = http.NoBody
	}
	if res.Request == nil {
		res.Request = e.req
	}
	return res, nil
}

// request returns the request of this attempt, with a new body where replay says so: a copy, for a RoundTripper must
// not change what it is given.
func (e *exchange) request(ctx context.Context, replay bool) (req *http.Request, watched *httpcheck.Body, err error) {
	req = e.req.Clone(ctx)
	if replay && e.req.GetBody != nil {
		body, err := e.req.GetBody()
		if err != nil {
			return nil, nil, localError(fmt.Errorf("replay the body: %w", err))
		}
		req.Body = body
	}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if e.t.cfg.Propagate == nil || e.t.cfg.Propagate(req.URL.Hostname()) {
		e.t.cfg.Propagator.Inject(ctx, propagation.HeaderCarrier(req.Header))
	}
	if err := httpcheck.Request(req); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, nil, localError(err)
	}
	if req.Body != nil && req.Body != http.NoBody {
		watched = httpcheck.Watch(req.Body, req.ContentLength)
		req.Body = watched
	}
	return req, watched, nil
}

// localError is the error of a request that failed on this side.
func localError(err error) error {
	if !errors.Is(err, ErrLocal) { // that of another Transport below
		err = fmt.Errorf("%w: %w", ErrLocal, err)
	}
	return &attemptError{error: err, outcome: breaker.Ignore}
}

// startTimer ends the attempt after the timeout. It is nil when there is none, or ctx ends sooner.
func (t *Transport) startTimer(ctx context.Context, cancel context.CancelCauseFunc) *time.Timer {
	if t.timeout <= 0 {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= t.timeout {
		return nil
	}
	return time.AfterFunc(t.timeout, func() { cancel(breaker.ErrTimeout) })
}

// attemptError carries what an attempt meant through the breaker. It holds no response: a breaker remembers it.
type attemptError struct {
	error
	outcome    breaker.Outcome
	repeatable bool
	pause      time.Duration
}

// Unwrap returns what the attempt ended with.
func (e *attemptError) Unwrap() error { return e.error }

// RetryAfter is the pause that the service asked for; package breaker looks for it.
func (e *attemptError) RetryAfter() time.Duration { return e.pause }

// Overload recognises, for an adaptive limit, that a service refuses load.
func (e *attemptError) Overload() bool {
	var s *StatusError
	if errors.As(e.error, &s) {
		return s.Status == http.StatusTooManyRequests || s.Status == http.StatusServiceUnavailable
	}
	return errors.Is(e.error, context.DeadlineExceeded)
}

// StatusError is what the hooks of a breaker, Retry.If and OpenError.LastErr see of a response that was a failure.
type StatusError struct {
	// Host is whose answer it was.
	Host string
	// Status is the HTTP status.
	Status int
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("breakerhttp: %s answered %d %s", e.Host, e.Status, http.StatusText(e.Status))
}

func classify(ctx context.Context, err error) breaker.Outcome {
	var a *attemptError
	if errors.As(err, &a) {
		return a.outcome
	}
	return breaker.DefaultClassify(ctx, err)
}

// retryAfter reads a Retry-After header in both of its forms.
func retryAfter(header string, limit time.Duration) time.Duration {
	if header == "" || limit <= 0 {
		return 0
	}
	seconds, err := strconv.ParseUint(header, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && seconds > uint64(limit/time.Second):
		return limit
	case err == nil:
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(limit, max(0, time.Until(at)))
	}
	return 0
}

func drain(res *http.Response) {
	stop := time.AfterFunc(drainTime, func() { _ = res.Body.Close() })
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, res.Body, drainBytes)
	_ = res.Body.Close()
}

// releasing returns body with release called when it is closed or read to its end.
func releasing(body io.ReadCloser, release func()) io.ReadCloser {
	b := &releaser{ReadCloser: body, release: sync.OnceFunc(release)}
	if w, ok := body.(io.Writer); ok { // 101 Switching Protocols: the connection itself
		return struct {
			*releaser
			io.Writer
		}{b, w}
	}
	return b
}

type releaser struct {
	io.ReadCloser
	release func()
}

func (b *releaser) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.release()
	}
	return n, err
}

func (b *releaser) Close() error {
	err := b.ReadCloser.Close()
	b.release()
	return err
}
