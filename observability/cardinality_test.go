package observability_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/observability"
)

// Thousands of paths, methods and hosts, through nested muxes and middleware that copies the request, make as many
// series as the program has routes.
func TestSeriesDoNotGrowWithWhatClientsSend(t *testing.T) {
	tel, _ := newTel(t, func(c *observability.Config) {
		c.LogWriter = io.Discard
	})
	ok := func(http.ResponseWriter, *http.Request) {}
	copying := func(next http.Handler) http.Handler {
		type k struct{}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), k{}, 1)))
		})
	}
	inner := tel.Mux()
	inner.HandleFunc("GET /items/{item}", ok)
	middle := tel.Mux()
	middle.Handle("/users/{user}/", copying(http.StripPrefix("/users/7", copying(inner))))
	middle.HandleFunc("GET /users/{user}", ok)
	mux := tel.Mux()
	mux.Handle("/api/", copying(http.StripPrefix("/api", middle)))
	mux.HandleFunc("GET /files/{rest...}", ok)
	mux.HandleFunc("POST example.test/hosted", ok)
	h := tel.Middleware(copying(mux))

	sendStrangeRequests(t, h)

	families, err := tel.Gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	endpoints, methods := map[string]float64{}, map[string]bool{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "http_") {
			continue
		}
		if n := len(f.GetMetric()); n > 12 {
			t.Errorf("%s has %d series", f.GetName(), n)
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "endpoint":
					if f.GetName() == "http_requests_total" {
						endpoints[l.GetValue()] += m.GetCounter().GetValue()
					}
				case "method":
					methods[l.GetValue()] = true
				}
			}
		}
	}
	for endpoint, n := range map[string]float64{"/api/users/{user}/items/{item}": 10000, "/api/users/{user}": 2000,
		"/hosted": 1} {
		if endpoints[endpoint] != n {
			t.Errorf("%s counts %v, want %v", endpoint, endpoints[endpoint], n)
		}
	}
	if endpoints["unmatched"] < 13000 {
		t.Errorf("unmatched counts %v", endpoints["unmatched"])
	}
	if fmt.Sprint(methods) != "map[GET:true POST:true other:true]" {
		t.Errorf("methods %v", methods)
	}
	if len(endpoints) > 6 {
		t.Errorf("endpoints %v", endpoints)
	}
}

// sendStrangeRequests sends requests whose every part is another each time.
func sendStrangeRequests(t *testing.T, h http.Handler) {
	t.Helper()
	send := func(method, host, path string) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.Method, r.Host, r.URL.Path, r.RequestURI = method, host, path, path
		h.ServeHTTP(&discard{h: http.Header{}}, r)
	}
	for i := range 10000 {
		send("GET", "a.test", fmt.Sprintf("/api/users/7/items/i%d", i)) // matched, three muxes deep
		send("GET", "a.test", fmt.Sprintf("/nowhere/%d", i))            // unmatched
	}
	for i := range 2000 {
		send(fmt.Sprintf("M%d", i), "a.test", "/files/a")
		send("GET", "a.test", fmt.Sprintf("/files/%d/../%%2e/x", i))
		send("GET", "a.test", fmt.Sprintf("//%d//", i)) // the mux redirects
		send("GET", "a.test", fmt.Sprintf("/api/users/%d", i))
	}
	for i := range 3000 {
		send("POST", fmt.Sprintf("h%d.test", i), "/hosted")
	}
	send("POST", "example.test", "/hosted")
}
