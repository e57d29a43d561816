package benchmarks

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sillar-go/sillar/observability"
)

// discard is a ResponseWriter that keeps nothing but headers.
type discard struct{ h http.Header }

func (n *discard) Header() http.Header       { return n.h }
func (*discard) Write(b []byte) (int, error) { return len(b), nil }
func (*discard) WriteHeader(int)             {}
func (*discard) Flush()                      {}

func serves(b *testing.B, name string, h http.Handler) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			r, w := httptest.NewRequest("GET", "/users/7", nil), &discard{h: http.Header{}}
			for p.Next() {
				w.h = http.Header{} // as a server gives each request
				h.ServeHTTP(w, r)
			}
		})
	})
}

func answer(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// prometheusMiddleware is what promhttp has: a gauge, a counter and a histogram.
func prometheusMiddleware(next http.Handler) http.Handler {
	count := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"method", "code"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "d"}, []string{"method", "code"})
	inFlight := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
	prometheus.NewRegistry().MustRegister(count, duration, inFlight)
	return promhttp.InstrumentHandlerInFlight(inFlight, promhttp.InstrumentHandlerDuration(duration,
		promhttp.InstrumentHandlerCounter(count, next)))
}

// drops is an exporter that takes spans and does nothing.
type drops struct{}

func (drops) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (drops) Shutdown(context.Context) error                             { return nil }

// BenchmarkMiddleware is a request with metrics, correlation id and access log. The peers are otelhttp and promhttp,
// which neither log nor know a correlation id, and the same with an access log by slog.
func BenchmarkMiddleware(b *testing.B) {
	ours := func(exporters ...sdktrace.SpanExporter) http.Handler {
		tel := observability.Must(observability.New(context.Background(), observability.Config{Service: "s",
			LogWriter: io.Discard, SpanExporters: exporters}))
		b.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
		mux := tel.Mux()
		mux.HandleFunc("GET /users/{id}", answer)
		return tel.Middleware(mux)
	}
	theirs := func(tp trace.TracerProvider, log *slog.Logger) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /users/{id}", answer)
		h := prometheusMiddleware(mux)
		if log != nil {
			inner := h
			h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				start := time.Now()
				inner.ServeHTTP(w, r)
				log.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("method", r.Method),
					slog.String("path", r.URL.Path), slog.Duration("took", time.Since(start)))
			})
		}
		return otelhttp.NewHandler(h, "s", otelhttp.WithTracerProvider(tp),
			otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()))
	}
	sdk := sdktrace.NewTracerProvider(sdktrace.WithBatcher(drops{}))
	b.Cleanup(func() { _ = sdk.Shutdown(context.Background()) })
	log := slog.New(slog.NewJSONHandler(io.Discard, nil)) //nolint:sloglint // the encoding is what is measured
	serves(b, "no spans/sillar", ours())
	serves(b, "no spans/otelhttp+promhttp", theirs(tracenoop.NewTracerProvider(), nil))
	serves(b, "no spans/otelhttp+promhttp+slog", theirs(tracenoop.NewTracerProvider(), log))
	serves(b, "spans/sillar", ours(drops{}))
	serves(b, "spans/otelhttp+promhttp", theirs(sdk, nil))
	serves(b, "spans/otelhttp+promhttp+slog", theirs(sdk, log))
}

// BenchmarkLog is a line with the ids of a context, where it was written, and five fields. The peers are given the ids
// as three more fields, since they take none from a context.
func BenchmarkLog(b *testing.B) {
	ids := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	ctx := trace.ContextWithSpanContext(observability.WithCorrelationID(context.Background(),
		"0199b3a0-0000-7000-8000-000000000000"), ids)
	run := func(name string, line func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				line()
			}
		})
	}
	const took = 1500 * time.Microsecond
	ours := slog.New(observability.NewLogHandler(io.Discard, observability.LogConfig{Service: "orders"}))
	run("sillar", func() {
		ours.LogAttrs(ctx, slog.LevelInfo, "order placed", slog.String("order", "o-1"), slog.Int("items", 3),
			slog.Bool("new", true), slog.Float64("total", 12.5), slog.Duration("took", took))
	})
	options := &slog.HandlerOptions{AddSource: true}
	std := slog.New(slog.NewJSONHandler(io.Discard, options)) //nolint:sloglint // the encoding is what is measured
	std = std.With("service", "orders")
	run("slog", func() {
		std.LogAttrs(ctx, slog.LevelInfo, "order placed", slog.String("correlation_id", observability.CorrelationID(ctx)),
			slog.String("trace_id", ids.TraceID().String()), slog.String("span_id", ids.SpanID().String()),
			slog.String("order", "o-1"), slog.Int("items", 3), slog.Bool("new", true), slog.Float64("total", 12.5),
			slog.Duration("took", took))
	})
	zapped := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		zapcore.AddSync(io.Discard), zap.InfoLevel), zap.AddCaller()).With(zap.String("service", "orders"))
	run("zap", func() {
		zapped.Info("order placed", zap.String("correlation_id", observability.CorrelationID(ctx)),
			zap.String("trace_id", ids.TraceID().String()), zap.String("span_id", ids.SpanID().String()),
			zap.String("order", "o-1"), zap.Int("items", 3), zap.Bool("new", true), zap.Float64("total", 12.5),
			zap.Duration("took", took))
	})
	zero := zerolog.New(io.Discard).With().Timestamp().Str("service", "orders").Logger()
	run("zerolog", func() {
		zero.Info().Caller().Str("correlation_id", observability.CorrelationID(ctx)).
			Str("trace_id", ids.TraceID().String()).Str("span_id", ids.SpanID().String()).
			Str("order", "o-1").Int("items", 3).Bool("new", true).Float64("total", 12.5).Dur("took", took).Msg("order placed")
	})
}
