package observability_test

import (
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

type discard struct{ h http.Header }

func (n *discard) Header() http.Header       { return n.h }
func (*discard) Write(b []byte) (int, error) { return len(b), nil }
func (*discard) WriteHeader(int)             {}
func (*discard) Flush()                      {}

// contestants are the middleware, with metrics, correlation id and access log, and otelhttp with no-op providers around
// promhttp's instruments, which log nothing.
func contestants(t testing.TB) (ours, theirs http.Handler) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	tel, _ := newTel(t, func(c *observability.Config) { c.LogWriter = io.Discard })
	mux := tel.Mux()
	mux.Handle("GET /users/{id}", ok)
	plain := http.NewServeMux()
	plain.Handle("GET /users/{id}", ok)
	reg := prometheus.NewRegistry()
	count := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"method", "code"})
	dur := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "d"}, []string{"method", "code"})
	inflight := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
	reg.MustRegister(count, dur, inflight)
	return tel.Middleware(mux), otelhttp.NewHandler(promhttp.InstrumentHandlerInFlight(inflight,
		promhttp.InstrumentHandlerDuration(dur, promhttp.InstrumentHandlerCounter(count, plain))),
		"s", otelhttp.WithTracerProvider(tracenoop.NewTracerProvider()),
		otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()))
}

// TestMiddlewareAllocs holds the middleware to a third of its peers' allocations.
func TestMiddlewareAllocs(t *testing.T) {
	count := func(h http.Handler) float64 {
		r, w := httptest.NewRequest("GET", "/users/7", nil), &discard{h: http.Header{}}
		return testing.AllocsPerRun(500, func() {
			w.h = http.Header{} // as a server gives each request
			h.ServeHTTP(w, r)
		})
	}
	a, b := contestants(t)
	if ours, theirs := count(a), count(b); ours*3 > theirs {
		t.Errorf("%v allocations a request, more than a third of otelhttp's and promhttp's %v", ours, theirs)
	}
}

// BenchmarkMiddleware measures them one after the other.
func BenchmarkMiddleware(b *testing.B) {
	run := func(b *testing.B, h http.Handler) {
		b.ReportAllocs()
		r, w := httptest.NewRequest("GET", "/users/7", nil), &discard{h: http.Header{}}
		for b.Loop() {
			w.h = http.Header{}
			h.ServeHTTP(w, r)
		}
	}
	ours, theirs := contestants(b)
	b.Run("sillar", func(b *testing.B) { run(b, ours) })
	b.Run("otelhttp+promhttp", func(b *testing.B) { run(b, theirs) })
}
