package observability

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/problem"
)

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
