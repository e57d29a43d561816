package observability

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/correlation"
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
