package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/httpcheck"
)

// attempt is one try of a request at one instance, until the end of its answer.
type attempt struct {
	route  *route
	inst   *instance
	body   *requestBody
	client context.Context //nolint:containedctx // it ends what the attempt began
	done   func(error)     // reports to the breaker

	ctx      context.Context //nolint:containedctx // that of the attempt
	cancel   context.CancelCauseFunc
	began    time.Time
	silent   *progress // ends the attempt when the answer does not begin
	answered responseBody
	span     trace.Span
	conns    atomic.Int32
	fresh    atomic.Int32 // new connections on which net/http sent the request again
	once     sync.Once

	// What silent and the request point to.
	timer progress
	trace httptrace.ClientTrace
	url   url.URL
}

// begin makes the request to the instance, and starts what bounds it.
func (a *attempt) begin(out *http.Request, resend int) *http.Request {
	a.ctx, a.cancel = context.WithCancelCause(a.client)
	a.inst.busy.Add(1)
	a.began = time.Now()
	a.silent = a.timer.start(a.route.Timeout, func() {
		a.body.cutStalled()
		a.cancel(errSilent)
	})
	a.trace.GotConn = a.gotConn
	req := out.WithContext(httptrace.WithClientTrace(a.ctx, &a.trace))
	a.url = a.inst.address(out.URL)
	req.URL = &a.url
	if req.Host == "" {
		req.Host = a.inst.host
	}
	req, a.span = a.route.g.telemetry.attempt(req, a.route.Name, resend)
	if out.Body != nil {
		if len(out.Trailer) > 0 {
			req.Trailer = maps.Clone(out.Trailer)
		}
		req.Body = a.body.attempt(a.silent, req.Trailer)
	}
	return req
}

// address is u at the instance.
func (i *instance) address(u *url.URL) url.URL {
	to := *u
	to.Scheme, to.Host = i.url.Scheme, i.url.Host
	if i.url.Path != "" {
		to.Path, to.RawPath = i.url.Path+to.Path, i.url.EscapedPath()+to.RawPath
	}
	return to
}

// gotConn counts connections: with the second one net/http itself sends the request again. It does so on one new
// connection after another, without a pause or an end, as long as an HTTP/2 instance resets the request.
func (a *attempt) gotConn(conn httptrace.GotConnInfo) {
	a.inst.accepted()
	if a.conns.Add(1) == 1 {
		return
	}
	a.route.budget.withdraw(true)
	if !conn.Reused && a.fresh.Add(1) > 1 {
		a.cancel(errReset)
	}
}

// exchange sends the request and waits for the beginning of the answer.
func (a *attempt) exchange(req *http.Request) (*http.Response, error) {
	if err := httpcheck.Request(req); err != nil {
		a.silent.stop()
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	res, err := a.inst.transport.RoundTrip(req)
	late := !a.silent.stop()
	switch {
	case err != nil && httpcheck.Local(err):
		err = localError(err)
	case err == nil && late: // its body is cut already
		_ = res.Body.Close()
		err = errSilent
	case err == nil && (res.StatusCode < 100 || res.StatusCode > 999 ||
		res.StatusCode == http.StatusSwitchingProtocols && !switches(req, res)):
		_ = res.Body.Close()
		err = errStatus
	}
	switch {
	case err == nil:
	case errors.Is(a.client.Err(), context.DeadlineExceeded):
		a.body.cutStalled() // before the verdict: what waits for the end of a.client runs beside this
	case a.client.Err() == nil && errors.Is(context.Cause(a.ctx), errSilent):
		err = errSilent
	case errors.Is(context.Cause(a.ctx), errReset) || strings.Contains(err.Error(), "PROTOCOL_ERROR; received from peer"):
		err = fmt.Errorf("%w: %w", errReset, err)
	case a.conns.Load() == 0 && !errors.Is(err, errRequest):
		err = fmt.Errorf("%w: %w", errUnsent, err)
	case !dialFailed(err) && headerSize(req) > largeHeader:
		err = fmt.Errorf("%w: %w", errLarge, err)
	}
	return res, err
}

// switches reports whether an instance changes to the protocol that it was asked for.
func switches(req *http.Request, res *http.Response) bool {
	return upgrades(req.Header) && strings.EqualFold(req.Header.Get("Upgrade"), res.Header.Get("Upgrade"))
}

// largeHeader is the size of a header with its request line, in bytes, from which a service may end the connection
// because of it, as HTTP/2 servers do whose settings have not arrived yet: then an error says nothing about the
// instance.
const largeHeader = 8 << 10

func headerSize(req *http.Request) (size int) {
	size = len(req.URL.RawPath) + len(req.URL.RawQuery)
	for name, values := range req.Header {
		for _, v := range values {
			size += len(name) + len(v)
		}
	}
	return size
}

// fail ends an attempt that got no answer. The breaker counts it unless it failed because of the client.
func (a *attempt) fail(err error) {
	answered(a.span, 0, err)
	a.release()
	if errors.Is(a.client.Err(), context.Canceled) || a.body.failed() ||
		a.body.unfinished() && !errors.Is(err, errSilent) || slices.ContainsFunc(
		[]error{errRequest, errReset, errOwnLimit, errLarge}, func(e error) bool { return errors.Is(err, e) }) {
		a.done(errNoVerdict)
		return
	}
	a.inst.count(a.began, true)
	a.done(err)
	if dialFailed(err) {
		a.inst.refused(time.Now())
		a.route.lookAgain()
	}
}

// answer reports the status to the breaker, and returns an answer whose end is the end of the attempt.
func (a *attempt) answer(res *http.Response) *http.Response {
	answered(a.span, res.StatusCode, nil)
	failed := false
	switch {
	case res.StatusCode == http.StatusNotImplemented || res.StatusCode == http.StatusHTTPVersionNotSupported:
		a.done(errNoVerdict) // the client asked for it, as by an unknown method
	case res.StatusCode >= http.StatusInternalServerError:
		failed = true
		a.done(fmt.Errorf("gateway: %s answered %d", a.inst.url.Host, res.StatusCode))
	default:
		a.done(nil)
	}
	a.inst.count(a.began, failed)
	body := &a.answered
	body.ReadCloser, body.attempt = res.Body, a
	if w, ok := res.Body.(io.Writer); ok && res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = struct {
			*responseBody
			io.Writer
		}{body, w}
		exchangeOf(a.client).tunnel = body
		return res
	}
	if a.route.IdleTimeout > 0 {
		body.idle = new(progress).start(a.route.IdleTimeout, func() { a.cancel(errIdle) })
	}
	res.Body = body
	return res
}

// release frees what the attempt holds.
func (a *attempt) release() {
	a.once.Do(func() {
		a.inst.release()
		a.cancel(nil)
		if a.span != nil {
			a.span.End()
		}
	})
}

// count notes an answer, or that there was none, for the metrics of instances.
func (i *instance) count(began time.Time, failed bool) {
	i.answers.Add(1)
	if failed {
		i.failed.Add(1)
	}
	i.waited.Add(int64(time.Since(began)))
}
