package benchmarks

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/grpcotel"
	"github.com/sillar-go/sillar/observability/otlp"
)

// The functions whose names begin with otel are the left side of docs/coming-from-otelhttp.md.

func otelRoutes() *chi.Mux {
	r := chi.NewRouter()
	r.Get("/orders/{id}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	return r
}

func otelMiddleware(tp *sdktrace.TracerProvider, reg *prometheus.Registry, log *slog.Logger) http.Handler {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total"},
		[]string{"method", "route", "code"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds"},
		[]string{"method", "route"})
	reg.MustRegister(requests, duration)
	r := otelRoutes()
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		start := time.Now()
		ctx := chi.NewRouteContext()
		req = req.WithContext(context.WithValue(req.Context(), chi.RouteCtxKey, ctx))
		m := statusWriter{ResponseWriter: w, status: http.StatusOK} // hides Flusher, Hijacker, ReaderFrom
		r.ServeHTTP(&m, req)
		route := ctx.RoutePattern()
		requests.WithLabelValues(req.Method, route, http.StatusText(m.status)).Inc()
		duration.WithLabelValues(req.Method, route).Observe(time.Since(start).Seconds())
		log.InfoContext(req.Context(), "request", "method", req.Method, "route", route, "status", m.status)
	})
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.Handle("/", otelhttp.NewHandler(h, "server", otelhttp.WithTracerProvider(tp)))
	return mux
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	w.status = code
	w.ResponseWriter.WriteHeader(code)
}

func otelGRPC(tp *sdktrace.TracerProvider) *grpc.Server {
	return grpc.NewServer(grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(tp))))
}

// The functions below are the right side.

func sillarMiddleware(tel *observability.Telemetry) http.Handler {
	r := chi.NewRouter()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { observability.SetRoute(r.Context(), chi.RouteContext(r.Context()).RoutePattern()) }()
			next.ServeHTTP(w, r)
		})
	})
	r.Get("/orders/{id}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	r.Handle("/metrics", tel.MetricsHandler())
	return tel.Middleware(r)
}

func sillarMux(tel *observability.Telemetry) http.Handler {
	mux := tel.Mux()
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.Handle("GET /metrics", tel.MetricsHandler())
	return tel.Middleware(mux)
}

func sillarSetup(ctx context.Context) (*observability.Telemetry, error) {
	exporters, err := otlp.FromEnv(ctx) // OTEL_EXPORTER_OTLP_ENDPOINT; none without it
	if err != nil {
		return nil, err
	}
	return observability.Setup(ctx, observability.Config{
		Service:       "orders",
		SpanExporters: exporters,
		Registerer:    prometheus.DefaultRegisterer, // metrics that exist stay where they are
	})
}

func sillarGRPC(tel *observability.Telemetry) *grpc.Server {
	return grpc.NewServer(grpcotel.Server(tel)...)
}

var _ = []any{sillarSetup}

func TestComingFromOtelhttp(t *testing.T) {
	tp := sdktrace.NewTracerProvider()
	otelGRPC(tp).Stop()
	get := func(h http.Handler, path string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Body.String()
	}
	var log bytes.Buffer
	theirs := otelMiddleware(tp, prometheus.NewRegistry(), slog.New(slog.NewJSONHandler(&log, nil)))
	get(theirs, "/orders/7")
	if got := get(theirs, "/metrics"); !strings.Contains(got, `route="/orders/{id}"`) {
		t.Errorf("the left side does not count by route:\n%s", got)
	}
	for name, make := range map[string]func(*observability.Telemetry) http.Handler{"chi": sillarMiddleware,
		"Mux": sillarMux} {
		tel := observability.Must(observability.New(t.Context(), observability.Config{Service: "orders", LogWriter: &log}))
		sillarGRPC(tel).Stop()
		ours := make(tel)
		get(ours, "/orders/7")
		get(ours, "/none")
		got := get(ours, "/metrics")
		for _, endpoint := range []string{"/orders/{id}", "unmatched"} {
			if !strings.Contains(got, `http_requests_total{endpoint="`+endpoint+`"`) {
				t.Errorf("%s: no series of %s:\n%s", name, endpoint, got)
			}
		}
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
