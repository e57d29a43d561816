package observability_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/observability"
)

func TestMain(m *testing.M) {
	killtest.Main()
	goleak.VerifyTestMain(m)
}

// lines is a log writer that tests read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) all(t testing.TB) (out []map[string]any) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("not JSON: %s", line)
		}
		out = append(out, m)
	}
	return out
}

func newTel(t testing.TB, change func(*observability.Config)) (*observability.Telemetry, *lines) {
	t.Helper()
	log := &lines{}
	cfg := observability.Config{Service: "orders", Version: "1", LogWriter: log}
	if change != nil {
		change(&cfg)
	}
	tel, err := observability.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel, log
}

// metric returns the value of a line of /metrics that begins with the name and labels, or "".
func metric(t testing.TB, tel *observability.Telemetry, series string) string {
	t.Helper()
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(rec.Body.String()) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func series(t testing.TB, tel *observability.Telemetry) int {
	t.Helper()
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	return strings.Count(rec.Body.String(), "\nhttp_requests_total{")
}

func TestPanicIsA500Everywhere(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tel, log := newTel(t, func(c *observability.Config) { c.SpanExporters = []sdktrace.SpanExporter{keep{spans}} })
	mux := tel.Mux()
	mux.HandleFunc("GET /boom/{id}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		panic("kaboom")
	})
	mux.HandleFunc("GET /late", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic("kaboom")
	})
	mux.HandleFunc("GET /abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	srv := httptest.NewUnstartedServer(tel.Middleware(mux))
	quiet := &lines{}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(quiet, nil), slog.LevelError)
	srv.Start()
	defer srv.Close()

	checkBoom(t, srv, tel)
	if v := metric(t, tel, `http_requests_total{endpoint="/abort",method="GET",status="499"}`); v != "1" {
		t.Errorf("metric of the abort: %q", v)
	}
	if v := metric(t, tel, `http_requests_in_progress{method="GET"}`); v != "0" {
		t.Errorf("in progress: %q", v)
	}
	all := log.all(t)
	if len(all) != 3 || all[0]["status"] != 500.0 || all[0]["level"] != "ERROR" || all[0]["panic"] != "kaboom" ||
		!strings.Contains(fmt.Sprint(all[0]["stack"]), "middleware_test.go") || all[0]["path"] != "/boom/1" {
		t.Errorf("log: %v", log)
	}
	if strings.Contains(log.String(), "hush") {
		t.Error("the query is in the log")
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := spans.GetSpans()
	if len(got) != 3 || got[0].Name != "GET /boom/{id}" || got[0].Status.Code.String() != "Error" ||
		len(got[0].Events) != 1 || all[0]["trace_id"] != got[0].SpanContext.TraceID().String() {
		t.Errorf("spans: %+v", got)
	}
	if strings.Contains(quiet.String(), "superfluous") || strings.Contains(quiet.String(), "panic serving") {
		t.Errorf("net/http complains: %s", quiet)
	}
}

// checkBoom asks for what panics, and reads the answer, the log and the metrics.
func checkBoom(t *testing.T, srv *httptest.Server, tel *observability.Telemetry) {
	t.Helper()
	res, err := http.Get(srv.URL + "/boom/1?token=hush")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != 500 || res.Header.Get("Content-Type") != "application/problem+json" ||
		res.Header.Get("Content-Encoding") != "" || strings.Contains(string(body), "kaboom") {
		t.Errorf("answer: %d %v %s", res.StatusCode, res.Header, body)
	}
	if !strings.Contains(string(body), res.Header.Get("X-Correlation-ID")) {
		t.Errorf("the problem lacks the correlation id: %s", body)
	}
	if v := metric(t, tel, `http_requests_total{endpoint="/boom/{id}",method="GET",status="500"}`); v != "1" {
		t.Errorf("metric: %q", v)
	}

	if res, err = http.Get(srv.URL + "/late"); err == nil {
		if _, err = io.ReadAll(res.Body); err == nil {
			t.Error("an answer that a panic cut short looks complete")
		}
		_ = res.Body.Close()
	}
	if v := metric(t, tel, `http_requests_total{endpoint="/late",method="GET",status="500"}`); v != "1" {
		t.Errorf("metric of the late panic: %q", v)
	}
	if _, err = http.Get(srv.URL + "/abort"); err == nil {
		t.Error("ErrAbortHandler was swallowed")
	}
}

// keep is an exporter that remembers after Shutdown.
type keep struct{ *tracetest.InMemoryExporter }

func (keep) Shutdown(context.Context) error { return nil }

func TestEndpointIsTheWholePattern(t *testing.T) {
	tel, _ := newTel(t, nil)
	ok := func(http.ResponseWriter, *http.Request) {}
	copying := func(next http.Handler) http.Handler {
		type k struct{}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), k{}, 1)))
		})
	}
	users := tel.Mux()
	users.HandleFunc("GET /users/{id}", ok)
	users.HandleFunc("GET /{$}", ok)
	tenant := tel.Mux()
	tenant.HandleFunc("GET /t/{tenant}/users/{id}", ok)
	mux := tel.Mux()
	mux.Handle("/api/v1/", copying(http.StripPrefix("/api/v1", copying(users))))
	mux.Handle("/t/{tenant}/", copying(tenant))
	mux.HandleFunc("GET shop.test/host", ok)
	mux.HandleFunc("/slash/{x}/", ok)
	h := tel.Middleware(copying(mux))
	for path, want := range map[string]string{
		"/api/v1/users/7": "/api/v1/users/{id}", "/api/v1/": "/api/v1/", "/t/acme/users/9": "/t/{tenant}/users/{id}",
		"/api/v1/nothing": "/api/v1/", "/nowhere": "unmatched", "/slash/redirects": "unmatched", "/slash/a/b": "/slash/{x}/",
		"http://shop.test/host": "/host",
	} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		s := metric(t, tel, `http_requests_total{endpoint="`+want+`",method="GET",status="200"}`)
		for _, status := range []string{"404", "307"} {
			s += metric(t, tel, `http_requests_total{endpoint="`+want+`",method="GET",status="`+status+`"}`)
		}
		if s == "" {
			t.Errorf("%s: no series for %s", path, want)
		}
	}

	plain := http.NewServeMux()
	plain.HandleFunc("GET /plain/{id}", ok)
	plain.HandleFunc("/dir/{x}/", ok)
	tel2, _ := newTel(t, nil)
	h = tel2.Middleware(plain)
	for i := range 50 {
		for _, r := range []*http.Request{
			httptest.NewRequest("GET", fmt.Sprintf("/plain/%d", i), nil), httptest.NewRequest("GET", fmt.Sprintf("/dir/%d", i),
				nil),
			httptest.NewRequest("GET", fmt.Sprintf("/none/%d", i), nil), httptest.NewRequest(fmt.Sprintf("M%d", i), "/plain/1",
				nil),
			httptest.NewRequest("GET", fmt.Sprintf("http://h%d.test/none", i), nil),
			httptest.NewRequest("GET", fmt.Sprintf("/dir//%d", i), nil),
		} {
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	if n := series(t, tel2); n > 8 {
		t.Errorf("%d series: they grow with what clients send", n)
	}
	if v := metric(t, tel2, `http_requests_total{endpoint="/plain/{id}",method="GET",status="200"}`); v != "50" {
		t.Errorf("plain mux: %q", v)
	}
}

func TestCorrelationID(t *testing.T) {
	tel, log := newTel(t, nil)
	checkCorrelation(t, tel)
	for _, l := range log.all(t) {
		if l["correlation_id"] == nil || l["service"] != "orders" {
			t.Fatalf("line without ids: %v", l)
		}
	}
}

// checkCorrelation sends identifiers of each kind.
func checkCorrelation(t *testing.T, tel *observability.Telemetry) {
	t.Helper()
	var seen string
	h := tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = observability.CorrelationID(r.Context())
		tel.Logger.InfoContext(r.Context(), "inside")
	}))
	do := func(id string) string {
		r := httptest.NewRequest("GET", "/", nil)
		if id != "" {
			r.Header["X-Correlation-Id"] = []string{id}
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Header().Get("X-Correlation-ID") != seen {
			t.Errorf("answered %q, carried %q", rec.Header().Get("X-Correlation-ID"), seen)
		}
		return seen
	}
	for _, id := range []string{"a", "A-b_c.9", strings.Repeat("x", 128)} {
		if got := do(id); got != id {
			t.Errorf("%q became %q", id, got)
		}
	}
	for _, id := range []string{"", "a b", "a\nb", "a\r\nX-Evil: 1", `a"b`, strings.Repeat("x", 129), "é", "{}", "a,b",
		"\x00"} {
		if got := do(id); got == id || len(got) != 36 {
			t.Errorf("%q gave %q", id, got)
		}
	}
}

func TestTwoServicesShareNothing(t *testing.T) {
	a, _ := newTel(t, nil)
	b, _ := newTel(t, nil)
	a.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if n := series(t, b); n != 0 {
		t.Errorf("the other service shows %d series", n)
	}
	c, err := a.MeterProvider.Meter("m").Int64Counter("sillar.test.things")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3)
	if v := metric(t, a, "sillar_test_things_total"); v != "3" {
		t.Errorf("an OTel instrument in /metrics: %q", v)
	}
}

func TestPublicEdgeStartsTracesAnew(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tel, _ := newTel(t, func(c *observability.Config) {
		c.SpanExporters, c.PublicEdge = []sdktrace.SpanExporter{keep{spans}}, true
	})
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	tel.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	_ = tel.Shutdown(t.Context())
	got := spans.GetSpans()
	if len(got) != 1 || got[0].SpanContext.TraceID().String() == "0af7651916cd43dd8448eb211c80319c" ||
		len(got[0].Links) != 1 {
		t.Errorf("spans: %+v", got)
	}
}

// A status that is none makes net/http panic: nothing has been answered then, and the answer is a 500 like any other.
func TestStatusThatIsNone(t *testing.T) {
	tel, _ := newTel(t, nil)
	srv := httptest.NewServer(tel.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(1000)
	})))
	defer srv.Close()
	res, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if v := metric(t, tel, `http_requests_total{endpoint="unmatched",method="GET",status="500"}`); res.StatusCode != 500 ||
		v != "1" {
		t.Errorf("%d, metric %q", res.StatusCode, v)
	}
}
