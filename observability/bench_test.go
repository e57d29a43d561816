package observability_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/sillar-go/sillar/observability"
)

type nobody struct{ h http.Header }

func (n *nobody) Header() http.Header       { return n.h }
func (*nobody) Write(b []byte) (int, error) { return len(b), nil }
func (*nobody) WriteHeader(int)             {}
func (*nobody) Flush()                      {}

// BenchmarkMiddleware sets the middleware, with metrics, correlation id and access log, beside otelhttp with no-op
// providers around promhttp's two instruments, which log nothing.
func BenchmarkMiddleware(b *testing.B) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	run := func(b *testing.B, h http.Handler) {
		b.ReportAllocs()
		r := httptest.NewRequest("GET", "/users/7", nil)
		w := &nobody{h: http.Header{}}
		for b.Loop() {
			h.ServeHTTP(w, r)
		}
	}
	tel, err := observability.New(context.Background(), observability.Config{Service: "s", LogWriter: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	mux := tel.Mux()
	mux.Handle("GET /users/{id}", ok)
	b.Run("sillar", func(b *testing.B) { run(b, tel.Middleware(mux)) })

	plain := http.NewServeMux()
	plain.Handle("GET /users/{id}", ok)
	reg := prometheus.NewRegistry()
	count := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"method", "code"})
	dur := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "d"}, []string{"method", "code"})
	inflight := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
	reg.MustRegister(count, dur, inflight)
	peer := otelhttp.NewHandler(promhttp.InstrumentHandlerInFlight(inflight, promhttp.InstrumentHandlerDuration(dur, promhttp.InstrumentHandlerCounter(count, plain))),
		"s", otelhttp.WithTracerProvider(tracenoop.NewTracerProvider()), otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()))
	b.Run("otelhttp+promhttp", func(b *testing.B) { run(b, peer) })
}
