package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/correlation"
)

const scope = "github.com/sillar-go/sillar/gateway"

// correlationKey is the header's canonical name: maps are read and written without making it again.
var correlationKey = http.CanonicalHeaderKey(correlation.Header)

// telemetry logs, traces and measures requests.
type telemetry struct {
	logger     *slog.Logger
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	duration   metric.Float64Histogram
	publicEdge bool
	quiet      bool // no line for each request
	ids        bool // the handler of logger does not add the correlation id
	standard   bool // the propagator is the default one

	// marks are attributes that were made before. There are few: routes, methods that are known and statuses.
	mu    sync.RWMutex
	marks map[mark][]metric.RecordOption
}

// serverSpan are the options of the span of a request.
var serverSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// mark is what durations are counted by.
type mark struct {
	route, method string
	status        int
}

func (t *telemetry) attributes(m mark) []metric.RecordOption {
	t.mu.RLock()
	known := t.marks[m]
	t.mu.RUnlock()
	if known != nil {
		return known
	}
	known = []metric.RecordOption{metric.WithAttributeSet(
		attribute.NewSet(attribute.String("http.route", m.route), attribute.String("http.request.method", m.method),
			attribute.Int("http.response.status_code", m.status)),
	)}
	t.mu.Lock()
	t.marks[m] = known
	t.mu.Unlock()
	return known
}

func newTelemetry(cfg Config, standard bool) (*telemetry, error) {
	d, err := cfg.MeterProvider.Meter(scope).Float64Histogram("sillar.gateway.duration", metric.WithUnit("s"),
		metric.WithDescription("How long requests took, by route, method and status."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
	if err != nil {
		return nil, err
	}
	adds, _ := cfg.Logger.Handler().(interface{ AddsCorrelationID() bool })
	return &telemetry{
		logger:     cfg.Logger,
		tracer:     cfg.TracerProvider.Tracer(scope),
		propagator: cfg.Propagator,
		duration:   d,
		publicEdge: cfg.PublicEdge,
		quiet:      cfg.NoAccessLog,
		standard:   standard,
		marks:      map[mark][]metric.RecordOption{},
		ids:        adds == nil || !adds.AddsCorrelationID(),
	}, nil
}

// log logs an event of a request, with its correlation id.
func (t *telemetry) log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr) {
	if !t.logger.Enabled(ctx, level) {
		return
	}
	if id := correlation.From(ctx); t.ids && id != "" {
		attrs = append(attrs, slog.String("correlation_id", id))
	}
	t.logger.LogAttrs(ctx, level, msg, attrs...)
}

// enter makes the context of a request. When middleware around the gateway has made a span or a correlation id of it,
// then it has read the headers, and may have had reasons not to believe them: they are not read again. Its span is the
// request's; the gateway makes none, and returns nil.
func (t *telemetry) enter(r *http.Request) (context.Context, string, trace.Span) {
	ctx := r.Context()
	around := trace.SpanContextFromContext(ctx)
	spanned := around.IsValid() && !around.IsRemote()
	switch id := correlation.From(ctx); {
	case id == "" && !spanned:
		if !t.standard || len(r.Header["Traceparent"]) > 0 { // else there is nothing but the id
			ctx = t.propagator.Extract(ctx, t.carrier(r.Header))
			break
		}
		fallthrough
	case id == "":
		if v := r.Header[correlationKey]; len(v) > 0 {
			ctx = correlation.With(ctx, v[0])
		}
	}
	ctx, id := correlation.Ensure(ctx)
	if spanned {
		return ctx, id, nil
	}
	opts := serverSpan
	if t.publicEdge {
		if stranger := trace.SpanContextFromContext(ctx); stranger.IsValid() {
			ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
			opts = append(slices.Clip(opts), trace.WithLinks(trace.Link{SpanContext: stranger}))
		}
	}
	ctx, span := t.tracer.Start(ctx, method(r.Method), opts...)
	return ctx, id, span
}

// carrier is what a propagator may read.
func (t *telemetry) carrier(h http.Header) propagation.TextMapCarrier {
	if t.publicEdge {
		return noBaggage{propagation.HeaderCarrier(h)}
	}
	return propagation.HeaderCarrier(h)
}

// noBaggage hides the baggage of an untrusted client.
type noBaggage struct{ propagation.HeaderCarrier }

func (c noBaggage) Get(key string) string {
	if strings.EqualFold(key, "baggage") {
		return ""
	}
	return c.HeaderCarrier.Get(key)
}

func (c noBaggage) Values(key string) []string {
	if strings.EqualFold(key, "baggage") {
		return nil
	}
	return c.HeaderCarrier.Values(key)
}

// attempt begins the span of an attempt, whose end ends it, and sends its context to the instance. Without a span that
// is recorded around it there is none: the instance gets the context of the surrounding one.
func (t *telemetry) attempt(req *http.Request, route string, resend int) (*http.Request, trace.Span) {
	ctx := req.Context()
	if !trace.SpanFromContext(ctx).IsRecording() {
		return req, nil
	}
	ctx, span := t.tracer.Start(ctx, method(req.Method), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", method(req.Method)),
		attribute.String("server.address", req.URL.Hostname()),
		attribute.String(
			"url.scheme",
			req.URL.Scheme,
		),
		attribute.String("url.path", clip(req.URL.Path)),
		attribute.String("peer.service", route),
	))
	if port, err := strconv.Atoi(req.URL.Port()); err == nil {
		span.SetAttributes(attribute.Int("server.port", port))
	}
	if resend > 0 {
		span.SetAttributes(attribute.Int("http.request.resend_count", resend))
	}
	req = req.WithContext(ctx)
	req.Header = req.Header.Clone() // another attempt may be at work on it
	t.propagator.Inject(ctx, propagation.HeaderCarrier(req.Header))
	return req, span
}

// inject sends the trace in ctx to a service. The id is in header already.
func (t *telemetry) inject(ctx context.Context, header http.Header) {
	if t.standard && !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	t.propagator.Inject(ctx, propagation.HeaderCarrier(header))
}

// answered records how an attempt went. Its span ends with the answer's body.
func answered(span trace.Span, status int, err error) {
	switch {
	case span == nil:
	case err != nil:
		kind := "_OTHER"
		switch {
		case errors.Is(err, errSilent), errors.Is(err, context.DeadlineExceeded):
			kind = "timeout"
		case errors.Is(err, context.Canceled):
			kind = "canceled"
		}
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, "")
	default:
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= 400 {
			span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
			span.SetStatus(codes.Error, "")
		}
	}
}

// clip bounds what a client can make attributes of. What is no UTF-8 would make exporters lose a batch of spans.
func clip(path string) string {
	const most = 512
	if len(path) > most {
		path = path[:most]
	}
	return strings.ToValidUTF8(path, "\uFFFD")
}

// end records a request that is over, or about to panic because its answer was cut.
func (t *telemetry) end(ctx context.Context, span trace.Span, w *reply, r *http.Request, remote string,
	took time.Duration) {
	status := w.status
	if status == 0 { // hijacked, or nothing was written: net/http sends 200
		status = http.StatusOK
		if upgrades(r.Header) {
			status = http.StatusSwitchingProtocols
		}
	}
	if w.status != 0 && errors.Is(r.Context().Err(), context.Canceled) { // it went away in the middle of the answer
		status = statusGone
	}
	if span != nil && span.IsRecording() {
		span.SetName(method(r.Method) + " " + r.Pattern)
		span.SetAttributes(
			attribute.String("http.request.method", method(r.Method)), attribute.String("http.route", r.Pattern),
			attribute.Int("http.response.status_code", status), attribute.String("url.path", clip(r.URL.Path)),
		)
		if status >= 500 {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
	}
	if span != nil {
		span.End()
	}
	t.duration.Record(ctx, took.Seconds(), t.attributes(mark{r.Pattern, method(r.Method), status})...)
	if !t.quiet && t.logger.Enabled(ctx, slog.LevelInfo) {
		t.log(
			ctx,
			slog.LevelInfo,
			"gateway: request",
			slog.String("method", method(r.Method)),
			slog.String("path", clip(r.URL.Path)),
			slog.String("route", r.Pattern),
			slog.Int("status", status),
			slog.Int64("bytes", w.bytes),
			slog.Duration("took", took),
			slog.String("remote", remote),
		)
	}
}

// method bounds what a client can make attributes of.
func method(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return m
	}
	return "_OTHER"
}
