package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/sillar-go/sillar/gateway"

// telemetry is what the gateway tells of requests.
type telemetry struct {
	logger   *slog.Logger
	tracer   trace.Tracer
	duration metric.Float64Histogram
}

func newTelemetry(cfg Config) (*telemetry, error) {
	d, err := cfg.MeterProvider.Meter(scope).Float64Histogram("sillar.gateway.duration", metric.WithUnit("s"),
		metric.WithDescription("How long requests took, by route, method and status."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
	if err != nil {
		return nil, err
	}
	return &telemetry{logger: cfg.Logger, tracer: cfg.TracerProvider.Tracer(scope), duration: d}, nil
}

func (t *telemetry) start(ctx context.Context, r *http.Request) (context.Context, trace.Span) {
	return t.tracer.Start(ctx, method(r.Method), trace.WithSpanKind(trace.SpanKindServer))
}

// end tells of a request that is over, or about to panic because its answer was cut.
func (t *telemetry) end(ctx context.Context, span trace.Span, w *reply, r *http.Request, took time.Duration) {
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
	if span.IsRecording() {
		span.SetName(method(r.Method) + " " + r.Pattern)
		span.SetAttributes(attribute.String("http.request.method", method(r.Method)), attribute.String("http.route", r.Pattern),
			attribute.Int("http.response.status_code", status))
		if status >= 500 {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
	}
	span.End()
	t.duration.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.String("http.route", r.Pattern),
		attribute.String("http.request.method", method(r.Method)), attribute.Int("http.response.status_code", status)))
	if t.logger.Enabled(ctx, slog.LevelInfo) {
		t.logger.LogAttrs(ctx, slog.LevelInfo, "gateway: request", slog.String("method", method(r.Method)), slog.String("path", r.URL.Path),
			slog.String("route", r.Pattern), slog.Int("status", status), slog.Int64("bytes", w.bytes), slog.Duration("took", took),
			slog.String("remote", r.RemoteAddr), slog.String("correlation_id", w.id))
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
