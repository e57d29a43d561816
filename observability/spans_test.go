package observability_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	metricapi "go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/sillar-go/sillar/observability"
)

// spanTotals are the values of observability_spans_total.
func spanTotals(t *testing.T, tel *observability.Telemetry) map[string]int {
	t.Helper()
	families, err := tel.Gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, f := range families {
		if f.GetName() == "observability_spans_total" {
			for _, m := range f.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = int(m.GetCounter().GetValue())
			}
		}
	}
	return out
}

// frozen takes spans and never answers, but for its context.
type frozen struct{ release chan struct{} }

func (f frozen) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.release:
		return errors.New("released")
	}
}
func (frozen) Shutdown(context.Context) error { return nil }

// slow takes its time.
type slow struct{ *tracetest.InMemoryExporter }

func (s slow) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	time.Sleep(5 * time.Millisecond)
	return s.InMemoryExporter.ExportSpans(ctx, spans)
}

// Every span is accounted for: sent, failed or dropped.
func TestEverySpanIsAccountedFor(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for name, c := range map[string]struct {
		exporter sdktrace.SpanExporter
		lost     bool
	}{
		"a collector that answers":   {tracetest.NewInMemoryExporter(), false},
		"a slow collector":           {slow{tracetest.NewInMemoryExporter()}, true},
		"a collector that refuses":   {&dead{}, true},
		"a collector that is frozen": {frozen{release}, true},
	} {
		t.Run(name, func(t *testing.T) {
			tel, _ := newTel(t, func(c2 *observability.Config) {
				c2.SpanExporters, c2.QueueSize, c2.ShutdownTimeout = []sdktrace.SpanExporter{c.exporter}, 600, 300*time.Millisecond
			})
			n := 3000
			if !c.lost {
				n = 500 // fewer than the queue holds
			}
			for range n {
				_, _ = observability.Trace(tel.With(t.Context()), "x", func(context.Context) (int, error) { return 0, nil })
			}
			err := tel.Shutdown(t.Context())
			sum := spanTotals(t, tel)
			if got := sum["sent"] + sum["failed"] + sum["dropped"]; got != n {
				t.Errorf("%v: %d spans, want %d", sum, got, n)
			}
			if !c.lost && (err != nil || sum["sent"] != n) {
				t.Errorf("%v, %v, want all sent", sum, err)
			}
			if strings.Contains(name, "frozen") && err == nil {
				t.Error("Shutdown says nothing of the spans it lost")
			}
		})
	}
}

// closing says when it is shut down.
type closing struct {
	*tracetest.InMemoryExporter
	closed chan struct{}
}

func (c closing) Shutdown(ctx context.Context) error {
	close(c.closed)
	return c.InMemoryExporter.Shutdown(ctx)
}

// A span that ends while Shutdown still waits for another exporter is accounted for by both.
func TestSpansThatEndDuringShutdownAreAccountedFor(t *testing.T) {
	first, release := closing{tracetest.NewInMemoryExporter(), make(chan struct{})}, make(chan struct{})
	defer close(release)
	tel, _ := newTel(t, func(c *observability.Config) {
		c.SpanExporters, c.ShutdownTimeout = []sdktrace.SpanExporter{first, frozen{release}}, 200*time.Millisecond
	})
	start := func() trace.Span {
		_, span := tel.TracerProvider.Tracer("x").Start(t.Context(), "x")
		return span
	}
	start().End() // the second exporter freezes with it
	late := start()
	ended := make(chan error, 1)
	go func() { ended <- tel.Shutdown(t.Context()) }()
	<-first.closed
	late.End()
	if err := <-ended; err == nil {
		t.Error("Shutdown says nothing of the spans it lost")
	}
	if sum := spanTotals(t, tel); sum["sent"] != 1 || sum["sent"]+sum["failed"]+sum["dropped"] != 4 {
		t.Errorf("got %v, want two spans for each of two exporters, one of them sent", sum)
	}
}

// One instrument that is badly named costs its own metric, not all.
func TestBadInstrumentCostsItsOwnMetric(t *testing.T) {
	tel, log := newTel(t, nil)
	counter, err := tel.MeterProvider.Meter("other").Int64Counter("http.requests")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 1)
	h := tel.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	for range 3 {
		rec := httptest.NewRecorder()
		tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		if rec.Code != 200 || !strings.Contains(rec.Body.String(), "go_goroutines") {
			t.Fatalf("got %d with %d bytes, want the other metrics", rec.Code, rec.Body.Len())
		}
	}
	if n := strings.Count(log.String(), "cannot be served"); n != 1 {
		t.Errorf("the conflict was logged %d times: %s", n, log)
	}
}

// Prometheus refuses a page on which a line has a label twice.
func TestLabelOfHistogramsCostsItsOwnSeries(t *testing.T) {
	tel, log := newTel(t, nil)
	histogram, err := tel.MeterProvider.Meter("other").Float64Histogram("sizes")
	if err != nil {
		t.Fatal(err)
	}
	histogram.Record(t.Context(), 1)
	histogram.Record(t.Context(), 1, metricapi.WithAttributes(attribute.String("le", "x")))
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if page := rec.Body.String(); strings.Contains(page, `le="x"`) || !strings.Contains(page, "sizes_count 1") ||
		!strings.Contains(log.String(), "cannot be served") {
		t.Errorf("the page has %d bytes with le=\"x\" %v; log: %s", len(page), strings.Contains(page, `le="x"`), log)
	}
}

// A panic keeps what outer middleware has set, such as CORS, and drops what the handler had begun.
func TestPanicKeepsHeadersOfOuterMiddleware(t *testing.T) {
	tel, _ := newTel(t, nil)
	inner := tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", "x")
		w.Header().Set("Access-Control-Allow-Origin", "https://evil.test")
		panic("no")
	}))
	rec := httptest.NewRecorder()
	http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://shop.test")
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		inner.ServeHTTP(w, r)
	}).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	h := rec.Header()
	if rec.Code != 500 || h.Get("Access-Control-Allow-Origin") != "https://shop.test" ||
		h.Get("Strict-Transport-Security") == "" || h.Get("ETag") != "" {
		t.Errorf("got %d with %v", rec.Code, h)
	}
}

// A client that has left is no failure of the server.
func TestClientThatHasLeftIsNoServerError(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tel, log := newTel(t, func(c *observability.Config) { c.SpanExporters = []sdktrace.SpanExporter{spans} })
	ctx, cancel := context.WithCancel(t.Context())
	tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.WriteHeader(http.StatusInternalServerError) // what the handler makes of context.Canceled
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	_ = tel.Shutdown(t.Context())
	if s := log.String(); !strings.Contains(s, `"status":499`) || strings.Contains(s, "ERROR") {
		t.Errorf("log: %s", s)
	}
	if got := spans.GetSpans(); len(got) != 0 && got[0].Status.Description != "" {
		t.Errorf("span: %+v", got[0].Status)
	}
}

// Probes and what a filter leaves out have no span; the environment of OpenTelemetry is followed or refused.
func TestSpansFollowQuietPathsFilterAndEnvironment(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "orders")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=1.2.3,deployment.environment.name=prod")
	spans := tracetest.NewInMemoryExporter()
	serve := func(cfg observability.Config, paths ...string) []tracetest.SpanStub {
		spans.Reset()
		var log lines
		cfg.LogWriter, cfg.SpanExporters = &log, []sdktrace.SpanExporter{keeping{spans}}
		tel, err := observability.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		h := tel.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for _, p := range paths {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", p, nil))
		}
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		return spans.GetSpans()
	}
	got := serve(observability.Config{Filter: func(r *http.Request) bool { return r.URL.Path != "/skip" }}, "/health",
		"/metrics", "/skip", "/orders")
	if len(got) != 1 || got[0].Name != "GET" {
		t.Fatalf("got %d spans, want that of /orders: %+v", len(got), got)
	}
	attrs := map[attribute.Key]string{}
	for _, a := range got[0].Resource.Attributes() {
		attrs[a.Key] = a.Value.AsString()
	}
	if attrs["service.name"] != "orders" || attrs["service.version"] != "1.2.3" ||
		attrs["deployment.environment.name"] != "prod" || attrs["telemetry.sdk.language"] != "go" {
		t.Errorf("resource: %v", attrs)
	}
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	if got := serve(observability.Config{}, "/orders"); len(got) != 0 {
		t.Errorf("always_off: %d spans", len(got))
	}
	for _, c := range [][2]string{{"OTEL_TRACES_SAMPLER", "sometimes"}, {"OTEL_PROPAGATORS", "tracecontext,b3"},
		{"OTEL_BSP_MAX_QUEUE_SIZE", "many"}, {"OTEL_BSP_SCHEDULE_DELAY", "5s"}, {"OTEL_BSP_EXPORT_TIMEOUT", "-1"},
		{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "x"}, {"OTEL_TRACES_SAMPLER_ARG", "half"}, {"OTEL_TRACES_SAMPLER_ARG", "2"},
		{"OTEL_TRACES_SAMPLER_ARG", "NaN"}, {"OTEL_RESOURCE_ATTRIBUTES", "a=%zz"}, {"OTEL_RESOURCE_ATTRIBUTES", "a=%ff"},
		{"OTEL_RESOURCE_ATTRIBUTES", "a"}} {
		name, value := c[0], c[1]
		t.Setenv("OTEL_TRACES_SAMPLER", "traceidratio")
		t.Setenv(name, value)
		if _, err := observability.New(t.Context(),
			observability.Config{SpanExporters: []sdktrace.SpanExporter{spans}}); err == nil || !strings.Contains(err.Error(),
			name) {
			t.Errorf("%s=%s: got %v, want an error that names it", name, value, err)
		}
		t.Setenv(name, "")
	}
}

// keeping keeps what was exported after Shutdown.
type keeping struct{ *tracetest.InMemoryExporter }

func (keeping) Shutdown(context.Context) error { return nil }
