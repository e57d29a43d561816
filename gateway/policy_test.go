package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/gateway"
)

// Middleware of a route runs in its order, knows the caller, and may answer itself or wrap what others write.
func TestMiddlewareOfRoutes(t *testing.T) {
	mark := func(name string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				subject, roles, ok := gateway.Caller(r.Context())
				w.Header().Add("X-Seen", fmt.Sprintf("%s %s %v %v", name, subject, roles, ok))
				r.Header.Set("X-User-ID", "root")
				r.Header.Set("X-"+name, "yes")
				if r.Header.Get("X-Stop") == name {
					w.WriteHeader(http.StatusTeapot)
					return
				}
				next.ServeHTTP(wrapped{w}, r)
			})
		}
	}
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-One"), r.Header.Get("X-Two"), r.Header.Get("X-User-ID"))
	})
	gw, url := start(t, gateway.Config{
		Auth:       auth,
		Middleware: map[string]func(http.Handler) http.Handler{"one": mark("One"), "two": mark("Two")},
		Routes: []gateway.Route{
			{Prefix: "/a", Upstreams: []string{up}, Middleware: []string{"one", "two"}},
			{Prefix: "/b", Upstreams: []string{up}},
			{Prefix: "/dead", Upstreams: []string{"http://127.0.0.1:1"}, DialWait: -1, Middleware: []string{"one"}},
		},
	})
	checkWrapped(t, url)
	err := gw.Reload([]gateway.Route{{Prefix: "/a", Upstreams: []string{up}, Middleware: []string{"three"}}})
	if err == nil || !strings.Contains(err.Error(), `middleware: there is no "three"`) {
		t.Errorf("a middleware that there is not: %v", err)
	}
}

// checkWrapped checks what the middleware of a route sees and does.
func checkWrapped(t *testing.T, url string) {
	t.Helper()
	ana := []string{"Authorization", "Bearer ana"}
	a := do(t, "GET", url+"/a", "", ana...)
	if seen := strings.Join(a.Header.Values("X-Seen"), "; "); a.text != "yesyessubject-of-ana" ||
		seen != "One subject-of-ana [customer] true; Two subject-of-ana [customer] true" {
		t.Errorf("got %q by %q", a.text, seen)
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 401 || a.Header.Get("X-Seen") != "" {
		t.Errorf("without a token: got %s by %q, want no middleware", a.Status, a.Header.Get("X-Seen"))
	}
	if a := do(t, "GET", url+"/a", "", append(ana, "X-Stop", "Two")...); a.StatusCode != 418 ||
		len(a.Header.Values("X-Seen")) != 2 {
		t.Errorf("got %s, want what the middleware answered", a.Status)
	}
	if a := do(t, "GET", url+"/b", "", ana...); a.text != "subject-of-ana" || a.Header.Get("X-Seen") != "" {
		t.Errorf("another route: got %q", a.text)
	}
	if a := do(t, "GET", url+"/dead", "", ana...); a.StatusCode != 502 || a.Header.Get("X-Wrapped") != "yes" ||
		!strings.Contains(a.text, "bad-gateway") {
		t.Errorf("a service that is down: got %s %s, wrapped %q", a.Status, a.text, a.Header.Get("X-Wrapped"))
	}
}

// wrapped is a ResponseWriter of a middleware.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) WriteHeader(status int) {
	w.Header().Set("X-Wrapped", "yes")
	w.ResponseWriter.WriteHeader(status)
}
func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var preflights = []struct {
	path, origin, method string
	want                 string
}{
	{"/a", "https://all.example", "GET", "https://all.example"},
	{"/a", "https://b.example", "GET", ""},
	{"/b", "https://b.example", "GET", "https://b.example"},
	{"/b", "https://all.example", "GET", ""},
	{"/b", "https://put.example", "PUT", "https://put.example"},
	{"/b", "https://b.example", "PUT", ""},
	{"/none", "https://all.example", "GET", "https://all.example"},
}

// CORS of a route takes the place of the gateway's, in preflights too.
func TestCORSOfRoutes(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{CORS: &gateway.CORS{Origins: []string{"https://all.example"}},
		Routes: []gateway.Route{
			{Prefix: "/a", Upstreams: []string{up}},
			{Prefix: "/b", Upstreams: []string{up}, CORS: &gateway.CORS{Origins: []string{"https://b.example"},
				Credentials: true}},
			{Name: "b-put", Prefix: "/b", Methods: []string{"PUT"}, Upstreams: []string{up},
				CORS: &gateway.CORS{Origins: []string{"https://put.example"}}},
		}})
	for _, c := range preflights {
		for _, asked := range []bool{false, true} {
			method, header := c.method, []string{"Origin", c.origin}
			if asked {
				method, header = "OPTIONS", append(header, "Access-Control-Request-Method", c.method)
			}
			a := do(t, method, url+c.path, "", header...)
			if got := a.Header.Get("Access-Control-Allow-Origin"); got != c.want || asked && a.StatusCode != 204 {
				t.Errorf("%s %s for %s of %s: got %q, want %q", method, c.path, c.method, c.origin, got, c.want)
			}
			if with := a.Header.Get("Access-Control-Allow-Credentials"); (with == "true") != (c.want == "https://b.example") {
				t.Errorf("%s %s of %s: credentials %q", method, c.path, c.origin, with)
			}
		}
	}
}

// Limits count by a header or by a function, by the address where there is neither, and tell what is left.
func TestLimitsByHeaderAndKey(t *testing.T) {
	up := echoing(t)
	limit := func(l gateway.RateLimit) *gateway.RateLimit { l.Rate, l.Burst, l.Headers = 0.1, 2, true; return &l }
	_, url := start(t, gateway.Config{
		LimitKeys: map[string]func(*http.Request) string{"tenant": func(r *http.Request) string {
			return r.URL.Query().Get("tenant")
		}},
		Routes: []gateway.Route{
			{Prefix: "/header", Upstreams: []string{up}, RateLimit: limit(gateway.RateLimit{ByHeader: "X-API-Key"})},
			{Prefix: "/key", Upstreams: []string{up}, RateLimit: limit(gateway.RateLimit{Key: "tenant"})},
			{Prefix: "/quiet", Upstreams: []string{up}, RateLimit: &gateway.RateLimit{Rate: 1}},
		},
	})
	checkLimitsByKey(t, url)
	if _, err := gateway.New(gateway.Config{Anonymous: true, Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{up}, RateLimit: &gateway.RateLimit{Rate: 1, Key: "none"}},
	}}); err == nil || !strings.Contains(err.Error(), "rate_limit: key: ") {
		t.Errorf("a key that there is not: %v", err)
	}
}

// checkLimitsByKey sends calls with keys and compares what remains to each.
func checkLimitsByKey(t *testing.T, url string) {
	t.Helper()
	long := strings.Repeat("k", 5000)
	for n, c := range []struct {
		path, key string
		want      int
		limit     string
	}{
		{"/header", "a", 200, `"default";r=1;t=10`}, {"/header", "a", 200, `"default";r=0;t=20`},
		{"/header", "a", 429, `"default";r=0;t=20`},
		{"/header", "b", 200, `"default";r=1;t=10`}, {"/header", long, 200, `"default";r=1;t=10`},
		{"/header", long + "x", 200, `"default";r=1;t=10`},
		{"/header", "", 200, `"default";r=1;t=10`}, {"/header", "", 200, `"default";r=0;t=20`},
		{"/header", "", 429, `"default";r=0;t=20`},
		{"/key?tenant=a", "", 200, `"default";r=1;t=10`}, {"/key?tenant=a", "x", 200, `"default";r=0;t=20`},
		{"/key?tenant=a", "y", 429, `"default";r=0;t=20`},
		{"/key?tenant=b", "", 200, `"default";r=1;t=10`}, {"/key", "", 200, `"default";r=1;t=10`},
		{"/quiet", "", 200, ""},
	} {
		var header []string
		if c.key != "" {
			header = []string{"X-Api-Key", c.key}
		}
		a := do(t, "GET", url+c.path, "", header...)
		policy := `"default";q=2;w=20`
		if c.limit == "" {
			policy = ""
		}
		if a.StatusCode != c.want || a.Header.Get("RateLimit") != c.limit || a.Header.Get("RateLimit-Policy") != policy {
			t.Errorf("%d: %s: got %s %q %q, want %d %q", n, c.path, a.Status, a.Header.Get("RateLimit"),
				a.Header.Get("RateLimit-Policy"), c.want, c.limit)
		}
	}
}

// Each instance in rotation has its metrics, and none that has left.
func TestMetricsOfInstances(t *testing.T) {
	reader := metric.NewManualReader()
	registry := newFakeRegistry()
	gw, url := start(t, gateway.Config{
		MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)), HealthInterval: -1,
		Registries: map[string]gateway.Registry{"fake": registry},
		Routes:     []gateway.Route{{Name: "users", Prefix: "/a", Upstreams: []string{"fake+http://users"}, Attempts: 1}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(ctx) }()
	inside := make(chan struct{})
	good := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			inside <- struct{}{}
			<-inside
		}
	})
	bad := upstream(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	registry.send(bad)
	for range 5 { // its breaker opens
		do(t, "GET", url+"/a", "")
	}
	registry.send(bad, good)
	address := func(u string) string { return strings.TrimPrefix(u, "http://") }
	measured := func() map[string]float64 {
		var m metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &m); err != nil {
			t.Fatal(err)
		}
		return instanceSeries(m)
	}
	answered := make(chan answer, 1)
	go func() { answered <- do(t, "GET", url+"/a/wait", "") }() // only the good one is left
	<-inside
	got := measured()
	for key, want := range map[string]float64{
		"in_flight users " + address(good): 1, "in_flight users " + address(bad): 0,
		"breaker users " + address(good): 0, "breaker users " + address(bad): 2, "healthy users " + address(bad): 1,
		"attempts users " + address(bad) + " true": 5, "attempts users " + address(bad) + " false": 0,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s: got %v, want %v; all: %v", key, v, want, got)
		}
	}
	if got["wait users "+address(bad)] <= 0 {
		t.Errorf("no time of the attempts at the failing one: %v", got)
	}
	inside <- struct{}{}
	<-answered
	registry.send(good)
	for key := range measured() {
		if strings.Contains(key, address(bad)) {
			t.Errorf("%s: measured after it left", key)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for key := range measured() {
		if strings.Contains(key, address(good)) {
			t.Errorf("%s: measured after Run", key)
		}
	}
}

// instanceSeries collects the series of instances.
func instanceSeries(m metricdata.ResourceMetrics) map[string]float64 {
	all := map[string]float64{}
	add := func(name string, set attribute.Set, v float64) {
		at, _ := set.Value("server.address")
		route, _ := set.Value("route")
		failed, ok := set.Value("failed")
		key := name + " " + route.AsString() + " " + at.AsString()
		if ok {
			key += fmt.Sprint(" ", failed.AsBool())
		}
		all[key] = v
	}
	for _, scope := range m.ScopeMetrics {
		for _, m := range scope.Metrics {
			name := strings.TrimPrefix(m.Name, "sillar.gateway.instance.")
			switch d := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					add(name, p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					add(name, p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range d.DataPoints {
					add(name, p.Attributes, p.Value)
				}
			}
		}
	}
	return all
}
