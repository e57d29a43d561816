package observability_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/observability"
)

func get(h http.Handler, path string) {
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
}

// foreign is a router that copies the request, as chi and gorilla/mux do.
func foreign(pattern string) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		r = r.WithContext(context.WithValue(r.Context(), new(int), 1))
		observability.SetRoute(r.Context(), pattern)
	})
}

func TestSetRouteNamesTheRouteOfOtherRouters(t *testing.T) {
	tel, log := newTel(t, nil)
	get(tel.Middleware(foreign("/orders/{id}")), "/orders/7")
	get(tel.Middleware(foreign("")), "/nothing") // a router that matched nothing
	mux := tel.Mux()
	mux.Handle("/api/", foreign("GET /api/items/{id}")) // a router inside a Mux
	get(tel.Middleware(mux), "/api/items/3")
	for _, endpoint := range []string{"/orders/{id}", "unmatched", "/api/items/{id}"} {
		if got := metric(t, tel, `http_requests_total{endpoint="`+endpoint+`",method="GET",status="200"}`); got != "1" {
			t.Errorf("%s counts %q requests, want 1", endpoint, got)
		}
	}
	if got := log.all(t)[0]["endpoint"]; got != "/orders/{id}" {
		t.Errorf("the access log has the endpoint %v", got)
	}
	observability.SetRoute(t.Context(), "/x") // outside of a request: nothing
}

func TestRoutesNamesAServeMuxBehindATimeoutHandler(t *testing.T) {
	tel, _ := newTel(t, nil)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /slow/{id}", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		observability.AddLogAttrs(r.Context(), slog.Int("late", 1)) // while the request ends
	})
	mux.HandleFunc("GET /tree/", func(http.ResponseWriter, *http.Request) {})
	h := tel.Middleware(http.TimeoutHandler(observability.Routes(mux), time.Millisecond, "slow"))
	get(h, "/slow/1")
	get(h, "/slow/2")
	get(h, "/tree")
	get(h, "/none")
	if got := metric(t, tel, `http_requests_total{endpoint="/slow/{id}",method="GET",status="503"}`); got != "2" {
		t.Errorf("the route counts %q requests, want 2", got)
	}
	if got := metric(t, tel, `http_requests_total{endpoint="unmatched",method="GET",status="404"}`); got != "1" {
		t.Errorf("unmatched counts %q requests, want 1", got)
	}
	if n := series(t, tel); n != 3 {
		t.Errorf("%d series, want 3", n)
	}
}

func TestMuxBehindATimeoutHandlerNamesTheRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the time passes once the handler waits
		tel, _ := newTel(t, nil)
		mux := tel.Mux()
		mux.HandleFunc("GET /slow/{id}", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		get(tel.Middleware(http.TimeoutHandler(mux, time.Millisecond, "slow")), "/slow/1")
		if got := metric(t, tel, `http_requests_total{endpoint="/slow/{id}",method="GET",status="503"}`); got != "1" {
			t.Errorf("the route counts %q requests, want 1", got)
		}
	})
}

func TestMiddlewareInstalledTwiceCountsOnce(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tel, log := newTel(t, func(c *observability.Config) { c.SpanExporters = []sdktrace.SpanExporter{keep{spans}} })
	mux := tel.Mux()
	mux.Handle("GET /users/{id}", tel.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.Handle("GET /boom", tel.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") })))
	h := tel.Middleware(tel.Middleware(mux))
	get(h, "/users/7")
	get(h, "/boom")
	for endpoint, status := range map[string]string{"/users/{id}": "200", "/boom": "500"} {
		if got := metric(t, tel, `http_requests_total{endpoint="`+endpoint+`",method="GET",status="`+status+
			`"}`); got != "1" {
			t.Errorf("%s counts %q, want 1", endpoint, got)
		}
	}
	if got := metric(t, tel, `http_requests_in_progress{method="GET"}`); got != "0" {
		t.Errorf("%s requests in progress, want 0", got)
	}
	if n := len(log.all(t)); n != 2 {
		t.Errorf("%d log lines, want 2", n)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(spans.GetSpans()); n != 2 {
		t.Errorf("%d spans, want 2", n)
	}
	other, _ := newTel(t, nil) // of another service in this process
	get(tel.Middleware(other.Middleware(http.NotFoundHandler())), "/x")
	if got := metric(t, other, `http_requests_total{endpoint="unmatched",method="GET",status="404"}`); got != "1" {
		t.Errorf("another Telemetry counts %q, want 1", got)
	}
}

func TestAccessLogHasFieldsOfTheProgram(t *testing.T) {
	tel, log := newTel(t, func(c *observability.Config) {
		c.AccessLog = func(r *http.Request) []slog.Attr { return []slog.Attr{slog.String("user_agent", r.UserAgent())} }
	})
	h := tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		observability.AddLogAttrs(r.Context(), slog.String("order_id", "o-1"))
		observability.AddLogAttrs(r.Context(), slog.Int("items", 3))
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", "curl")
	h.ServeHTTP(httptest.NewRecorder(), r)
	line := log.all(t)[0]
	if line["user_agent"] != "curl" || line["order_id"] != "o-1" || line["items"] != 3.0 {
		t.Errorf("got %v, want user_agent, order_id and items", line)
	}
	if _, ok := line["client_address"]; ok {
		t.Error("client_address without TrustedProxies")
	}
	observability.AddLogAttrs(t.Context(), slog.Int("x", 1)) // outside of a request: nothing
}

func TestClientAddressBehindTrustedProxies(t *testing.T) {
	for name, c := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"no proxy":                  {"192.0.2.9:1", []string{"203.0.113.1"}, "192.0.2.9"},
		"one proxy":                 {"10.0.0.1:1", []string{"203.0.113.1"}, "203.0.113.1"},
		"a client that forges":      {"10.0.0.1:1", []string{"1.2.3.4, 203.0.113.1"}, "203.0.113.1"},
		"two proxies, two headers":  {"10.0.0.1:1", []string{"1.2.3.4, 203.0.113.1", "10.0.0.2"}, "203.0.113.1"},
		"only proxies":              {"10.0.0.1:1", []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		"no header":                 {"10.0.0.1:1", nil, "10.0.0.1"},
		"not an address":            {"10.0.0.1:1", []string{"1.2.3.4, <b>, 10.0.0.2"}, "10.0.0.2"},
		"IPv6, and with a port":     {"[fd00::1]:1", []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		"IPv4 in IPv6 is the proxy": {"[::ffff:10.0.0.1]:1", []string{"203.0.113.1"}, "203.0.113.1"},
	} {
		t.Run(name, func(t *testing.T) {
			tel, log := newTel(t, func(c *observability.Config) {
				c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
			})
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.peer
			r.Header["X-Forwarded-For"] = c.forwarded
			tel.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
			if got := log.all(t)[0]["client_address"]; got != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestMetricsGoToTheGivenRegisterer(t *testing.T) {
	checkSharedRegistry(t)
	alone, _ := newTel(t, func(c *observability.Config) { c.Registerer = prometheus.NewRegistry() })
	get(alone.Middleware(http.NotFoundHandler()), "/")
	if got := metric(t, alone, `http_requests_in_progress{method="GET"}`); got != "0" {
		t.Errorf("without a Gatherer, the Registerer is not served: got %q", got)
	}
	taken := prometheus.NewRegistry()
	taken.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "http_requests_total", Help: "mine"}))
	if _, err := observability.New(t.Context(), observability.Config{Service: "s", LogWriter: io.Discard,
		Registerer: taken}); err == nil ||
		!strings.Contains(err.Error(), "http_requests_total") {
		t.Errorf("a name that is taken: got %v, want an error that names it", err)
	}
}

// checkSharedRegistry counts requests of two services in one registry.
func checkSharedRegistry(t *testing.T) {
	t.Helper()
	reg := prometheus.NewRegistry()
	// as the default one
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tels := map[string]*observability.Telemetry{}
	for _, name := range []string{"a", "b"} { // two services share one registry by labels of their own
		tels[name], _ = newTel(t, func(c *observability.Config) {
			c.Registerer, c.Gatherer = prometheus.WrapRegistererWith(prometheus.Labels{"part": name}, reg), reg
		})
		counter, err := tels[name].MeterProvider.Meter("m").Int64Counter("things")
		if err != nil {
			t.Fatal(err)
		}
		counter.Add(t.Context(), 1)
		get(tels[name].Middleware(http.NotFoundHandler()), "/")
	}
	for _, name := range []string{"a", "b"} {
		if got := metric(t, tels["a"], `things_total{part="`+name+`"}`); got != "1" {
			t.Errorf("things_total of %s is %q, want 1", name, got)
		}
		const requests = `http_requests_total{endpoint="unmatched",method="GET",part="`
		if got := metric(t, tels["a"], requests+name+`",status="404"}`); got != "1" {
			t.Errorf("http_requests_total of %s is %q, want 1", name, got)
		}
	}
}
