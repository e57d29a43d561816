package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/httpcheck"
)

var (
	errSilent    = errors.New("gateway: the service did not begin its answer in time")
	errIdle      = errors.New("gateway: the service paused too long in its answer")
	errStatus    = errors.New("gateway: the service answered with a status that is none")
	errNoVerdict = errors.New("gateway: the client ended the request")
	errTooLarge  = errors.New("gateway: the body is too large")
	errRevoked   = errors.New("gateway: another attempt has the body")
	errRequest   = errors.New("gateway: the request cannot be sent") // because of what the client sent
	errOwnLimit  = errors.New("gateway: the header of the answer is too large")
)

// RoundTrip sends the request to instances until one answers, as far as nothing is done twice.
func (r *route) RoundTrip(out *http.Request) (*http.Response, error) {
	ctx, x := out.Context(), exchangeOf(out.Context())
	r.budget.deposit()
	var space [4]*instance
	tried := space[:0]
	for n := 1; ; n++ {
		inst, done, err := r.pick(ctx, tried)
		if err != nil {
			return nil, err
		}
		res, err := r.send(out, x, inst, done, n-1)
		if n >= r.Attempts || ctx.Err() != nil || x.body.failed() || !retriable(out, res, err) || !x.body.revoke() {
			return res, err
		}
		tried = append(tried, inst)
		others := r.another(tried)
		if res != nil && !others || !r.budget.withdraw(false) { // nobody else to ask, or too often: its answer stands
			return res, err
		}
		if res != nil {
			drain(res.Body)
		}
		if !others && backoff.Sleep(ctx, 10*time.Millisecond+rand.N(40*time.Millisecond)) != nil {
			return nil, err
		}
	}
}

// drain reads the rest of an answer that is not passed on, so that its connection can be used again, but no more and
// for no longer than a new connection costs.
func drain(body io.ReadCloser) {
	stop := time.AfterFunc(100*time.Millisecond, func() { _ = body.Close() })
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}

// another says whether there is an instance that was not tried and would take a call.
func (r *route) another(tried []*instance) bool {
	all := r.panicking()
	return slices.ContainsFunc(r.instances, func(i *instance) bool {
		return !slices.Contains(tried, i) && (all || i.breaker.RetryAfter() == 0)
	})
}

// retriable says whether a request may be sent again: it was not processed, or twice is as good as once.
func retriable(out *http.Request, res *http.Response, err error) bool {
	if res != nil && res.StatusCode != http.StatusBadGateway && res.StatusCode != http.StatusServiceUnavailable &&
		res.StatusCode != http.StatusGatewayTimeout {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	if errors.Is(err, errSilent) || errors.Is(err, errRequest) || errors.Is(err, errOwnLimit) {
		return false // the client has waited once already, or another instance gets the same
	}
	if upgrades(out.Header) {
		return false
	}
	switch out.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return out.Header.Get("Idempotency-Key") != ""
}

// send tries one instance, after as many others as resend says.
func (r *route) send(
	out *http.Request,
	x *exchange,
	inst *instance,
	done func(error),
	resend int,
) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(out.Context())
	inst.busy.Add(1)
	timer := newProgress(r.Timeout, func() {
		x.body.cutStalled()
		cancel(errSilent)
	})
	var conns atomic.Int32
	req := out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if conns.Add(1) > 1 { // net/http itself sends it again
			r.budget.withdraw(true)
		}
	}}))
	u := *out.URL
	u.Scheme, u.Host = inst.url.Scheme, inst.url.Host
	if inst.url.Path != "" {
		u.Path, u.RawPath = inst.url.Path+u.Path, inst.url.EscapedPath()+u.RawPath
	}
	req.URL = &u
	req, span := r.g.telemetry.attempt(req, r.Name, resend)
	release := sync.OnceFunc(func() {
		inst.busy.Add(-1)
		cancel(nil)
		if span != nil {
			span.End()
		}
	})
	if out.Body != nil {
		if len(out.Trailer) > 0 {
			req.Trailer = maps.Clone(out.Trailer)
		}
		req.Body = x.body.attempt(timer, req.Trailer)
	}
	var res *http.Response
	err := httpcheck.Request(req)
	if err != nil {
		err = fmt.Errorf("%w: %w", errRequest, err)
	} else if res, err = inst.base.RoundTrip(req); err != nil && httpcheck.Local(err) {
		err = localError(err)
	}
	if late := !timer.stop(); err == nil && (late || res.StatusCode < 100) {
		_ = res.Body.Close()
		if err = errStatus; late { // its body is cut already
			err = errSilent
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errSilent) && out.Context().Err() == nil {
			err = errSilent
		}
		answered(span, 0, err)
		release()
		if errors.Is(out.Context().Err(), context.Canceled) || x.body.failed() || errors.Is(err, errRequest) ||
			errors.Is(err, errOwnLimit) {
			done(errNoVerdict)
		} else {
			done(err)
		}
		return nil, err
	}
	answered(span, res.StatusCode, nil)
	if res.StatusCode >= 500 {
		done(fmt.Errorf("gateway: %s answered %d", inst.url.Host, res.StatusCode))
	} else {
		done(nil)
	}
	body := &responseBody{ReadCloser: res.Body, release: release}
	if w, ok := res.Body.(io.Writer); ok && res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = struct {
			*responseBody
			io.Writer
		}{body, w}
		return res, nil
	}
	if r.IdleTimeout > 0 {
		body.idle = newProgress(r.IdleTimeout, func() { cancel(errIdle) })
	}
	res.Body = body
	return res, nil
}

// localError tells a limit of the gateway, which the answer of an instance is above, from what the client sent.
func localError(err error) error {
	if strings.Contains(err.Error(), "response header") || strings.Contains(err.Error(), "COMPRESSION_ERROR") {
		return fmt.Errorf("%w: %w", errOwnLimit, err)
	}
	return fmt.Errorf("%w: %w", errRequest, err)
}

// responseBody frees what an attempt holds when it has been read or closed.
type responseBody struct {
	io.ReadCloser
	release func()
	idle    *progress
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.idle.touch()
	if err != nil {
		b.idle.stop()
		b.release()
	}
	return n, err
}

func (b *responseBody) Close() error {
	b.idle.stop()
	err := b.ReadCloser.Close()
	b.release()
	return err
}

// progress is a timer that starts again with every sign of life. A nil one does nothing.
type progress struct {
	mu    sync.Mutex
	timer *time.Timer
	after time.Duration
	over  bool
}

func newProgress(after time.Duration, fn func()) *progress {
	if after <= 0 {
		return nil
	}
	return &progress{timer: time.AfterFunc(after, fn), after: after}
}

func (p *progress) touch() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.timer.Reset(p.after)
	}
}

// stop stops the timer for good, and says whether it came before the timer's end.
func (p *progress) stop() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return p.timer.Stop()
}

// requestBody is the client's body. It is never kept: an attempt that has read from it is the last one.
type requestBody struct {
	max      int64
	cut      func()        // ends a Read that waits for the client
	rc       io.ReadCloser // nil when there is none
	trailer  http.Header   // the client's, complete at the end of rc
	tooLarge atomic.Bool
	broken   atomic.Bool // the client did not send what it announced
	reading  atomic.Bool // somebody waits for the client
	stalled  atomic.Bool // the client was waited for too long

	mu      sync.Mutex
	touched bool
	read    int64
	current *attemptBody
}

// failed says whether the client, not the service, is why there is no answer.
func (b *requestBody) failed() bool { return b.tooLarge.Load() || b.broken.Load() || b.stalled.Load() }

// cutStalled ends a wait for the client. It is the client's failure then, else slow clients could open the breaker; and
// net/http's transport does not return before its read of the body does.
func (b *requestBody) cutStalled() {
	if b.reading.Load() {
		b.stalled.Store(true)
		b.cut()
	}
}

// attempt returns the body for one attempt, at whose end trailer is filled.
func (b *requestBody) attempt(timer *progress, trailer http.Header) io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = &attemptBody{b: b, timer: timer, trailer: trailer}
	return b.current
}

// revoke takes the body from the attempt that has it, and says whether another one may have it.
func (b *requestBody) revoke() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = nil
	return !b.touched
}

// attemptBody is the body in the hands of a transport, which may hold on to it after its answer.
type attemptBody struct {
	b       *requestBody
	timer   *progress
	trailer http.Header // those that may be sent
}

func (a *attemptBody) Read(p []byte) (int, error) {
	b := a.b
	b.mu.Lock()
	if b.current != a {
		b.mu.Unlock()
		return 0, errRevoked
	}
	b.touched = true
	b.mu.Unlock()
	b.reading.Store(true)
	n, err := b.rc.Read(p)
	b.reading.Store(false)
	a.timer.touch()
	if b.read += int64(n); b.max > 0 && b.read > b.max {
		b.tooLarge.Store(true)
		return 0, errTooLarge
	}
	if err != nil && err != io.EOF {
		b.broken.Store(true)
	}
	if err == io.EOF {
		for name := range a.trailer {
			if v := b.trailer[name]; len(v) > 0 {
				a.trailer[name] = v
			}
		}
	}
	return n, err
}

// Close does nothing: the server closes the client's body, and another attempt may need it.
func (a *attemptBody) Close() error { return nil }
