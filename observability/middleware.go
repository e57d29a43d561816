package observability

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/problem"
)

// request is what is noted about a request while it is served.
type request struct {
	tel    *Telemetry
	w      writer
	fhr    withFHR
	f      withF
	start  time.Time
	method string
	outer  http.Header // what outer middleware had set
	id     [1]string   // the value of the correlation header
	span   trace.Span
	done   bool // the handler has returned

	mu          sync.Mutex // handlers under http.TimeoutHandler may run after the request has ended
	route       string     // joined pattern of the muxes that matched
	pattern     string     // that of the last of them
	patternPath string     // the path that it saw
	stripped    string     // the patterns of what has been stripped before it
	noted       bool       // a Mux is in the chain
	silent      bool       // not counted, not logged
	attrs       []slog.Attr
}

type requestKey struct{}

func requestFrom(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

// statusAborted is counted for a request whose handler gave the connection up before it answered.
const statusAborted = 499

// maxPath bounds the path in the access log and in spans, and the host in spans.
const maxPath = 512

// clip bounds what a client sends.
func clip(s string) string { return s[:min(len(s), maxPath)] }

// Middleware gives each request its correlation id, span, metrics and access log, and turns a panic into a 500. The
// context of the request carries t. Inside another Middleware of the same Telemetry it only calls next, so that a
// request counts once.
func (t *Telemetry) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := requestFrom(r.Context()); q != nil && q.tel == t {
			next.ServeHTTP(w, r)
			return
		}
		q := &request{tel: t, start: time.Now(), method: methodLabel(r.Method)}
		q.w.ResponseWriter = w
		ctx := t.enter(q, r)
		r = r.WithContext(ctx)
		gauge := t.metrics.inProgress.WithLabelValues(q.method)
		gauge.Inc()
		defer func() {
			gauge.Dec()
			t.leave(ctx, q, r, recovered(recover(), q))
		}()
		next.ServeHTTP(q.show(), r)
		q.done = true
	})
}

// correlationKey is the header's canonical name: the map is read and written without making it again.
var correlationKey = http.CanonicalHeaderKey(correlation.Header)

// enter makes the context of a request.
func (t *Telemetry) enter(q *request, r *http.Request) context.Context {
	ctx := r.Context()
	if t.carries(r.Header) {
		ctx = t.Propagator.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	id := correlation.From(r.Context()) // of a middleware around this one
	if v := r.Header[correlationKey]; id == "" && len(v) > 0 {
		id = v[0]
	}
	if !correlation.Valid(id) {
		id = correlation.New()
	}
	ctx = correlation.With(ctx, id)
	h := q.w.Header()
	q.id[0] = id
	h[correlationKey] = q.id[:]
	if len(h) > 1 {
		q.outer = h.Clone()
	}
	ctx = context.WithValue(ctx, requestKey{}, q)
	if t.cfg.PublicEdge {
		ctx = baggage.ContextWithoutBaggage(ctx)
	}
	remote := trace.SpanContextFromContext(ctx)
	if len(t.cfg.SpanExporters) == 0 || !t.traced(r) {
		if t.cfg.PublicEdge && remote.IsValid() {
			ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
		}
		return ctx // which passes the trace of the caller on
	}
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	if t.cfg.PublicEdge && remote.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: remote}))
		ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	}
	ctx, q.span = t.tracer.Start(ctx, q.method, opts...)
	return ctx
}

// traced reports whether a request has a span.
func (t *Telemetry) traced(r *http.Request) bool {
	return !slices.Contains(t.cfg.QuietPaths, r.URL.Path) && (t.cfg.Filter == nil || t.cfg.Filter(r))
}

// clientAddress returns the address of the client, behind the proxies that are trusted.
func (t *Telemetry) clientAddress(r *http.Request) string {
	client := hostOf(r.RemoteAddr)
	if !t.trusts(client) {
		return client
	}
	chain := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(chain) {
		a, err := netip.ParseAddr(hostOf(strings.TrimSpace(hop)))
		if err != nil { // what stands before it comes from who wrote this
			break
		}
		client = a.Unmap().String()
		if !t.trusts(client) {
			break
		}
	}
	return client
}

// trusts reports whether an address is that of a trusted proxy.
func (t *Telemetry) trusts(address string) bool {
	if len(t.cfg.TrustedProxies) == 0 {
		return false
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(t.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// hostOf returns an address without its port.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// errorClass is error.type by the HTTP conventions: the class of the panic, or the status.
func errorClass(status int, p *panicked) string {
	if p != nil && p.stack != nil {
		return fmt.Sprintf("%T", p.value)
	}
	return statusLabel(status)
}

// carries reports whether a request may have anything, beside the correlation id, that the propagator looks for.
func (t *Telemetry) carries(h http.Header) bool {
	if t.fields == nil {
		return true
	}
	for _, f := range t.fields {
		if len(h[f]) > 0 {
			return true
		}
	}
	return false
}

// panicked is a panic of a handler.
type panicked struct {
	value any
	stack []byte
	abort bool // http.ErrAbortHandler, or what has to become it
}

func recovered(v any, q *request) *panicked {
	if v == nil {
		if !q.done { // runtime.Goexit: the server gives the connection up
			return &panicked{abort: true}
		}
		return nil
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
		return &panicked{value: v, abort: true}
	}
	return &panicked{value: v, stack: debug.Stack()}
}

// leave notes how a request ended. A panic is answered with a 500 where nothing has been answered yet; where something
// has, the connection is cut, so that the client does not take a part for the whole.
func (t *Telemetry) leave(ctx context.Context, q *request, r *http.Request, p *panicked) {
	status := q.w.status
	switch {
	case p != nil && !p.abort:
		if status == 0 && !q.w.hijacked {
			h := q.w.Header() // what the handler had set belongs to the answer that it did not give
			for name := range h {
				if name != correlationKey {
					delete(h, name)
				}
			}
			maps.Copy(h, q.outer) // such as CORS, without which a browser hides the 500
			problem.Write(ctx, &q.w, http.StatusInternalServerError, "internal", "")
		} else {
			p.abort = true
		}
		status = http.StatusInternalServerError
	case p != nil && status == 0:
		status = statusAborted
	case status == 0 && q.w.hijacked:
		status = http.StatusSwitchingProtocols
	case status == 0:
		status = http.StatusOK // net/http writes it when the handler returns
	}
	if p == nil && status >= 500 && errors.Is(ctx.Err(), context.Canceled) { // of a client that has left
		status = statusAborted
	}
	endpoint, silent, attrs := q.end(r)
	if !silent {
		now := time.Now()
		t.count(ctx, q, endpoint, status, now.Sub(q.start))
		t.log(ctx, q, r, endpoint, status, p, attrs, now)
	}
	t.endSpan(q, r, endpoint, status, p)
	if p != nil && p.abort && p.value != nil {
		panic(http.ErrAbortHandler)
	}
}

func (t *Telemetry) count(ctx context.Context, q *request, endpoint string, status int, took time.Duration) {
	if q.w.hijacked { // a WebSocket's life is no request's duration
		t.metrics.requests.WithLabelValues(q.method, endpoint, statusLabel(status)).Inc()
		return
	}
	s := t.metrics.of(q.method, endpoint, statusLabel(status))
	s.requests.Inc()
	observe(ctx, s.duration, took)
}

// observe adds a value to a histogram, with the trace as its exemplar when that is recorded.
func observe(ctx context.Context, o prometheus.Observer, d time.Duration) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() && trace.SpanFromContext(ctx).IsRecording() {
		if e, ok := o.(prometheus.ExemplarObserver); ok {
			e.ObserveWithExemplar(d.Seconds(), prometheus.Labels{"trace_id": sc.TraceID().String()})
			return
		}
	}
	o.Observe(d.Seconds())
}

func (t *Telemetry) log(
	ctx context.Context,
	q *request,
	r *http.Request,
	endpoint string,
	status int,
	p *panicked,
	attrs []slog.Attr,
	now time.Time,
) {
	level := slog.LevelInfo
	quiet := slices.Contains(t.cfg.QuietPaths, r.URL.Path)
	switch {
	case quiet && status < 500:
		return
	case quiet && p == nil: // a probe that gets "not ready" is no fault
		level = slog.LevelWarn
	case status >= 500:
		level = slog.LevelError
	}
	if !t.handler.Enabled(ctx, level) {
		return
	}
	rec := slog.NewRecord(now, level, "request", 0)
	rec.AddAttrs(slog.String("method", q.method), slog.String("path", clip(r.URL.Path)), slog.String("endpoint", endpoint),
		slog.Int("status", status), slog.Float64("duration_ms", float64(now.Sub(q.start).Microseconds())/1000),
		slog.Int64("bytes", q.w.bytes))
	if t.cfg.TrustedProxies != nil {
		rec.AddAttrs(slog.String("client_address", t.clientAddress(r)))
	}
	if t.cfg.AccessLog != nil {
		rec.AddAttrs(t.cfg.AccessLog(r)...)
	}
	rec.AddAttrs(attrs...)
	if p != nil && p.stack != nil {
		rec.AddAttrs(slog.String("panic", fmt.Sprint(p.value)), slog.String("stack", string(p.stack)))
	}
	_ = t.handler.Handle(ctx, rec) // there is no other log
}

func (t *Telemetry) endSpan(q *request, r *http.Request, endpoint string, status int, p *panicked) {
	if q.span == nil {
		return
	}
	defer q.span.End()
	if !q.span.IsRecording() {
		return
	}
	method := q.method
	if method == "other" {
		method = "_OTHER" // as OpenTelemetry writes it
	}
	name := method
	if endpoint != unmatched {
		name += " " + endpoint
		q.span.SetAttributes(attribute.String("http.route", endpoint))
	}
	q.span.SetName(name)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	q.span.SetAttributes(
		attribute.String("http.request.method", method), attribute.String("url.path", clip(r.URL.Path)),
		attribute.String("url.scheme", scheme), attribute.Int("http.response.status_code", status),
		attribute.String("server.address", clip(hostOf(r.Host))), attribute.String("client.address", t.clientAddress(r)),
	)
	if status >= 500 {
		q.span.SetStatus(codes.Error, "")
		q.span.SetAttributes(attribute.String("error.type", errorClass(status, p)))
	}
	if p != nil && p.stack != nil {
		q.span.AddEvent("exception", trace.WithAttributes(
			attribute.String("exception.type", fmt.Sprintf("%T", p.value)),
			attribute.String("exception.message", fmt.Sprint(p.value)),
			attribute.String("exception.stacktrace", string(p.stack))))
	}
}
