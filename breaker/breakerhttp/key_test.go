package breakerhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// Failures of one key open its breaker, and not that of another.
func TestKeysHaveBreakersOfTheirOwn(t *testing.T) {
	templates, err := breakerhttp.PathTemplates("GET /orders/{id}", "/reports/{year}/{month}", "POST /orders")
	if err != nil {
		t.Fatal(err)
	}
	tenant := breakerhttp.HeaderKey("X-Tenant-ID")
	for name, c := range map[string]struct {
		key               breakerhttp.KeyFunc
		fails, same, none string // "METHOD PATH TENANT": one that fails, one with the same breaker, one with another
		named             string
	}{
		"host":         {nil, "GET /a -", "POST /b t1", "", ""},
		"template":     {templates, "GET /orders/1 -", "GET /orders/2 t1", "GET /reports/2026/1 -", "GET /orders/{id}"},
		"other method": {templates, "GET /orders/1 -", "HEAD /orders/3 -", "POST /orders -", "GET /orders/{id}"},
		"no template":  {templates, "GET /x -", "GET /y -", "GET /orders/1 -", ""},
		"tenant":       {tenant, "GET /a t1", "GET /b t1", "GET /a t2", "t1"},
		"no tenant":    {tenant, "GET /a -", "GET /b -", "GET /a t2", ""},
		"both": {breakerhttp.JoinKeys(templates, tenant), "GET /orders/1 t1", "GET /orders/2 t1",
			"GET /orders/1 t2", "GET /orders/{id} t1"},
		"neither": {breakerhttp.JoinKeys(templates, tenant), "GET /x -", "GET /y -", "GET /x t2", ""},
		"long": {tenant, "GET /a " + strings.Repeat("a", 5000) + "1", "GET /b " + strings.Repeat("a", 5000) + "1",
			"GET /a " + strings.Repeat("a", 5000) + "2", "?"},
		"not UTF-8":      {func(*http.Request) string { return strings.Repeat("é", 1000) }, "GET /a -", "GET /b -", "", "?"},
		"a dirty path":   {templates, "GET /orders//1 -", "GET /orders/2 -", "GET /y -", "GET /orders/{id}"},
		"an escaped one": {templates, "GET /orders/a%2Fb -", "GET /orders/2 -", "GET /y -", "GET /orders/{id}"},
	} {
		t.Run(name, func(t *testing.T) {
			fail := false
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if fail {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}))
			defer srv.Close()
			tr := breakerhttp.Must(breakerhttp.NewTransport(nil, breakerhttp.Config{Key: c.key,
				Breaker: breaker.Config{Failures: 2}}))
			defer tr.CloseIdleConnections()
			request := func(s string) *http.Request {
				f := strings.Fields(s)
				req, err := http.NewRequestWithContext(t.Context(), f[0], srv.URL+f[1], nil)
				if err != nil {
					t.Fatal(err)
				}
				if f[2] != "-" {
					req.Header.Set("X-Tenant-ID", f[2])
				}
				return req
			}
			fail = true
			for range 2 {
				res, err := tr.RoundTrip(request(c.fails))
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
			}
			fail = false
			if _, err := tr.RoundTrip(request(c.same)); !breaker.IsRejection(err) {
				t.Errorf("the same key: %v, want a rejection", err)
			}
			if c.none != "" {
				res, err := tr.RoundTrip(request(c.none))
				if err != nil {
					t.Fatalf("another key: %v", err)
				}
				_ = res.Body.Close()
			}
			b := tr.BreakerOf(request(c.fails))
			want := "http/" + strings.TrimPrefix(srv.URL, "http://")
			if c.named != "" {
				want += " " + c.named
			}
			if b.State() != breaker.Open || b.Name() != want && c.named != "?" || len(b.Name()) > 200 ||
				!strings.HasPrefix(b.Name(), "http/127.") {
				t.Errorf("%q is %s, want %q to be open", b.Name(), b.State(), want)
			}
		})
	}
}

// Keys that clients choose neither fill the memory nor cut off keys that were never called.
func TestKeysAreBounded(t *testing.T) {
	tr := breakerhttp.Must(breakerhttp.NewTransport(failing{},
		breakerhttp.Config{Key: breakerhttp.HeaderKey("X-Tenant-ID"), MaxHosts: 10,
			Hedge: breakerhttp.Hedge{Quantile: 0.9}, Breaker: breaker.Config{Failures: 1}}))
	for n := range 1000 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://h/", nil)
		req.Header.Set("X-Tenant-ID", fmt.Sprint(n))
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatalf("tenant %d: %v", n, err)
		}
		_ = res.Body.Close()
	}
}

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) { return status(500) }

func TestPathTemplatesRefusesBadPatterns(t *testing.T) {
	for _, p := range [][]string{{"/a/{"}, {""}, {"/a/{id}", "/a/{name}"}, {"GET"}} {
		if _, err := breakerhttp.PathTemplates(p...); err == nil {
			t.Errorf("%q: no error", p)
		}
	}
}

func ExamplePathTemplates() {
	key, err := breakerhttp.PathTemplates("GET /orders/{id}", "/reports/")
	if err != nil {
		panic(err)
	}
	tr, err := breakerhttp.NewTransport(nil, breakerhttp.Config{Key: key})
	if err != nil {
		panic(err)
	}
	for _, path := range []string{"/orders/42", "/reports/2026/05", "/"} {
		req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://shop:8000"+path, nil)
		fmt.Println(tr.BreakerOf(req).Name())
	}
	// Output:
	// http/shop:8000 GET /orders/{id}
	// http/shop:8000 /reports/
	// http/shop:8000
}
