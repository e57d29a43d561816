package gatewayyaml_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/gateway/gatewayyaml"
)

func TestParse(t *testing.T) {
	got, err := gatewayyaml.Parse([]byte(`
routes:
  - prefix: /users
    upstreams: [http://users:8000]
    public: [POST /token, "/docs/**"]
  - name: orders
    prefix: /orders
    upstreams: [http://orders-1:8002, http://orders-2:8002]
    roles: [customer]
    timeout: 10s
    max_body: -1
    upgrade: true
    rate_limit: {rate: 0.5, burst: 3, by_subject: true}
    breaker: {failures: 2, open_for: 1m}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []gateway.Route{
		{Prefix: "/users", Upstreams: []string{"http://users:8000"}, Public: []string{"POST /token", "/docs/**"}},
		{Name: "orders", Prefix: "/orders", Upstreams: []string{"http://orders-1:8002", "http://orders-2:8002"}, Roles: []string{"customer"},
			Timeout: 10 * time.Second, MaxBody: -1, Upgrade: true, RateLimit: &gateway.RateLimit{Rate: 0.5, Burst: 3, BySubject: true},
			Breaker: breaker.Config{Failures: 2, OpenFor: time.Minute}},
	}
	if d := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Retry" }, cmp.Ignore())); d != "" {
		t.Fatal(d)
	}
	for _, bad := range []string{"", "routes: []", "routes: [{prefix: /a, role: [x]}]", "router: []", "routes: [{prefix: /a, timeout: soon}]", ":", "routes: {a: b}"} {
		if r, err := gatewayyaml.Parse([]byte(bad)); err == nil {
			t.Errorf("%q: %+v and no error", bad, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("routes: [{prefix: /a, upstreams: [http://a]}]")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = gatewayyaml.Parse([]byte(s)) })
}

func TestWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("routes: [{prefix: /a, upstreams: ['http://127.0.0.1:1']}]")
	routes, err := gatewayyaml.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Routes: routes, Logger: quiet}))
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- gatewayyaml.Watch(ctx, file, 5*time.Millisecond, gw, quiet) }()
	becomes := func(path string, want int) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			w := httptest.NewRecorder()
			gw.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is %d, want %d", path, w.Code, want)
			}
		}
	}
	becomes("/b", 404)
	time.Sleep(20 * time.Millisecond)
	write("routes: [{prefix: /b, upstreams: ['http://127.0.0.1:1']}]")
	becomes("/b", 502)
	write("routes: [{prefix: nonsense}]")
	time.Sleep(30 * time.Millisecond)
	becomes("/b", 502)
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

func ExampleParse() {
	routes, err := gatewayyaml.Parse([]byte("routes: [{prefix: /users, upstreams: ['http://users:8000'], timeout: 5s}]"))
	fmt.Println(routes[0].Prefix, routes[0].Timeout, err)
	// Output: /users 5s <nil>
}
