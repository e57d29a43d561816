package gatewayyaml_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/gateway/gatewayyaml"
)

func TestParseReadsRoutesAndNamesMistakes(t *testing.T) {
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
    breaker: {failures: 2, failure_rate: 0.5, slow_rate: 0.25, slow_call: 2s, window: 30s, min_calls: 9, open_for: 1m, probes: 3, observe_only: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []gateway.Route{
		{Prefix: "/users", Upstreams: []string{"http://users:8000"}, Public: []string{"POST /token", "/docs/**"}},
		{Name: "orders", Prefix: "/orders", Upstreams: []string{"http://orders-1:8002", "http://orders-2:8002"},
			Roles:   []string{"customer"},
			Timeout: 10 * time.Second, MaxBody: -1, Upgrade: true, RateLimit: &gateway.RateLimit{Rate: 0.5, Burst: 3,
				BySubject: true},
			Breaker: breaker.Config{Failures: 2, FailureRate: 0.5, SlowRate: 0.25, SlowCall: 2 * time.Second,
				Window:   30 * time.Second,
				MinCalls: 9, OpenFor: time.Minute, Probes: 3, ObserveOnly: true}},
	}
	if d := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Retry" },
		cmp.Ignore())); d != "" {
		t.Fatal(d)
	}
}

// A few aliases of aliases stand for more than any memory holds: the file is refused, and the gateway lives.
func TestAliasesThatGrow(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	b.WriteString("routes:\n  - prefix: /a\n    upstreams: *a11\n")
	var e *gatewayyaml.Error
	if _, err := gatewayyaml.Parse([]byte(b.String())); !errors.As(err, &e) || !strings.Contains(err.Error(), "aliases") {
		t.Errorf("%.200v", err)
	}
	for _, text := range []string{"routes: &a [*a]", "routes: " + strings.Repeat("[", 10_000)} {
		if _, err := gatewayyaml.Parse([]byte(text)); err == nil {
			t.Errorf("%.50s: no error", text)
		}
	}
	got, err := gatewayyaml.Parse([]byte("routes:\n  - prefix: /a\n    upstreams: &u [http://a]\n    timeout: &t 5s\n " +
		" - prefix: /b\n    upstreams: *u\n    timeout: *t\n"))
	if err != nil || len(got) != 2 || got[1].Timeout != 5*time.Second || got[1].Upstreams[0] != "http://a" {
		t.Errorf("%v %v", got, err)
	}
}

// Every error says where, and in which route.
func TestErrorsNameTheLine(t *testing.T) {
	const head = "# routes\nroutes:\n  - prefix: /ok\n    upstreams: [http://ok]\n  - prefix: /a\n    upstreams: " +
		"[http://a]\n"
	for text, want := range map[string]string{
		"":                                  "1:1 no routes",
		"# nothing":                         "1:1 no routes",
		"routes: []":                        "1:1 no routes",
		"router: []":                        "1:1 unknown field",
		":":                                 "1:1 unexpected",
		"routes: {a: b}":                    "1:9 mapping was used",
		"routes:\n\t- a":                    "2:1 cannot start",
		head + "---\nroutes: []":            "8:1 second document",
		head + "    role: [x]":              "7:5 /a unknown field \"role\"",
		head + "    prefix: /b":             "7:5 already defined",
		head + "    timeout: soon":          "7:14 /a \"soon\" is no duration",
		head + "    timeout: 10":            "7:14 /a \"10\" is no duration",
		head + "    max_body: much":         "7:15 /a ",
		head + "    max_body: 1.5":          "7:15 /a want a whole number",
		head + "    max_body: '10'":         "7:15 /a want a whole number",
		head + "    attempts: true":         "7:15 /a want a whole number",
		head + "    retry_budget: '0.5'":    "7:19 /a want a number",
		head + "    upgrade: yes":           "7:14 /a want true or false",
		head + "    name: 5":                "7:11 /a want a text",
		head + "    headers: {a: 1.10}":     "7:18 /a want a text",
		head + "    roles: [null]":          "7:13 /a want a value",
		head + "    roles:":                 "7:12 /a want a value",
		head + "    rate_limit: ~":          "7:17 /a want a value",
		head + "    <<: {timeout: 10}":      "7:19 /a \"10\" is no duration",
		"routes: [&a {<<: *a}]":             "1:18 an alias",
		head + "    <<: {roles: [true]}":    "7:18 /a want a text",
		head + "    breaker: {open_for: x}": "7:25 /a \"x\" is no duration",
		head + "    breaker: {probes: -1}":  "7:5 /a breaker: ",
		head + "    breaker: {trips: 1}":    "7:15 /a unknown field",
		head + "    rewrite: b":             "7:5 /a rewrite: ",
		head + "    rate_limit: {rate: 0}":  "7:5 /a rate_limit: ",
		head + "    retry_budget: 2":        "7:5 /a retry_budget: ",
		head + "    public: [/x, GET y]":    "7:5 /a public: ",
		head + "    health: up":             "7:5 /a health: ",
		head + "    openapi: ../x":          "7:5 /a openapi: ",
		head + "    name: ok":               "7:5 /a name: another",
		head + "    weights: [1, 2]":        "7:5 /a weights: ",
		head + "    weights: [half]":        "7:15 /a ",
		head + "    balance: fair":          "7:5 /a balance: ",
		head + "    hosts: ['a:80']":        "7:5 /a hosts: ",
		head + "    methods: [get]":         "7:5 /a methods: ",
		head + "    slow_start: slow":       "7:17 /a \"slow\" is no duration",
		head + "    cors: {origins: []}":    "7:5 /a cors: ",
		head + "    cors:\n      origins: [https://a]\n      max_age: 1":                "9:16 /a \"1\" is no duration",
		head + "    transport:\n      dial_timeout: 5":                                  "8:21 /a \"5\" is no duration",
		head + "    transport:\n      tls:\n        ca: x":                              "9:9 /a unknown field",
		head + "    transport: {tls: {cert_file: x}}":                                   "7:5 /a transport: ",
		head + "    rate_limit: {rate: 1, by_subject: true, key: x}":                    "7:5 /a rate_limit: ",
		head + "    headers: {'a b': c}":                                                "7:5 /a headers: ",
		head + "    token_protocol: bearer.":                                            "7:5 /a token_protocol: ",
		head + "    unhealthy_after: -1":                                                "7:5 /a unhealthy_after: ",
		head + "  - prefix: /a\n    name: b\n    methods: [GET]\n    upstreams: ['x:']": "10:5 /a upstreams: ",
		head + "  - prefix: /a/\n    upstreams: [http://x]":                             "7:5 /a/ prefix: another",
		head + "  - upstreams: [http://x]":                                              "7:5 prefix: ",
		head + "  - {prefix: /b, upstreams: ['ftp://x']}":                               "7:18 /b upstreams: ",
		head + "  - {prefix: /b}":                                                       "7:6 /b upstreams: there are none",
		head + "  - prefix: /b\n    upstreams: [http://u:secret@x]":                     "8:5 /b upstreams: ",
		head + "  - prefix: b\n  - prefix: /c\n    upstreams: ['gopher:']":              "7:5 b prefix: | 9:5 /c upstreams: ",
	} {
		routes, err := gatewayyaml.Parse([]byte(text))
		if err == nil {
			t.Errorf("%q: %+v and no error", text, routes)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: a password in %v", text, err)
		}
		lines := strings.Split(err.Error(), "\n")
		for n, want := range strings.Split(want, " | ") {
			at, rest, _ := strings.Cut(want, " ")
			row, column, _ := strings.Cut(at, ":")
			if n >= len(lines) || !strings.HasPrefix(lines[n], "gatewayyaml: line "+row+", column "+column+": ") {
				t.Errorf("%q: %v, want it at %s", text, err, at)
				continue
			}
			if strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "b ") {
				var route string
				route, rest, _ = strings.Cut(rest, " ")
				if !strings.Contains(lines[n], "route \""+route+"\": ") {
					t.Errorf("%q: %v, want route %s", text, err, route)
				}
			}
			if !strings.Contains(lines[n], rest) {
				t.Errorf("%q: %v, want %q", text, err, rest)
			}
		}
	}
	var e *gatewayyaml.Error
	if _, err := gatewayyaml.Parse([]byte(head + "    role: [x]")); !errors.As(err, &e) || e.Line != 7 || e.Column != 5 ||
		e.Route != "/a" {
		t.Errorf("%+v", e)
	}
	if _, err := gatewayyaml.Parse(make([]byte, gatewayyaml.MaxSize+1)); err == nil {
		t.Error("a file without end was taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("routes: [{prefix: /a, upstreams: [http://a]}]")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = gatewayyaml.Parse([]byte(s)) })
}

// Watch sees a file that is written, one that is moved to its place, and a link that is changed; not what is wrong.
func TestWatchSeesEachKindOfReplacement(t *testing.T) {
	dir := t.TempDir()
	one := func(prefix string) string {
		return "routes: [{prefix: " + prefix + ", upstreams: ['http://127.0.0.1:1'], dial_wait: -1}]"
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// As Kubernetes mounts a ConfigMap: routes.yaml -> ..data/routes.yaml, ..data -> ..1
	for _, name := range []string{"..1", "..2"} {
		must(os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	write("..1/routes.yaml", one("/a"))
	must(os.Symlink("..1", filepath.Join(dir, "..data")))
	file := filepath.Join(dir, "routes.yaml")
	must(os.Symlink(filepath.Join("..data", "routes.yaml"), file))

	routes, err := gatewayyaml.Load(file)
	must(err)
	var out lines
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Routes: routes, Logger: slog.New(slog.DiscardHandler)}))
	write("..1/routes.yaml", one("/between")) // after it was loaded, and before it is watched
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() {
		stopped <- gatewayyaml.Watch(ctx, file, 5*time.Millisecond, gw, slog.New(slog.NewTextHandler(&out, nil)))
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("in vain: %s\n%s", what, out.String())
			}
		}
	}
	serves := func(path string) func() bool {
		return func() bool {
			w := httptest.NewRecorder()
			gw.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Code == 502
		}
	}
	until("what changed before", serves("/between"))
	write("..1/routes.yaml", one("/written"))
	until("written in place", serves("/written"))
	write("..2/routes.yaml", one("/linked"))
	must(os.Symlink("..2", filepath.Join(dir, "..new")))
	must(os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	until("another link", serves("/linked"))
	write("moved", one("/moved"))
	must(os.Rename(filepath.Join(dir, "moved"), file))
	until("moved to its place", serves("/moved"))

	write("routes.yaml", one("/moved")+"\nmore: x")
	until("an error with its line", func() bool { return strings.Contains(out.String(), "line 2, column 1") })
	write("routes.yaml", "routes:\n  - prefix: /x\n    upstreams: ['http://127.0.0.1:1']\n    roles: [admin]")
	until("an error of the gateway's with its line", func() bool {
		return strings.Contains(out.String(), "line 4, column 5: route \\\"/x\\\": roles")
	})
	must(os.Remove(file))
	until("a missing file", func() bool { return strings.Contains(out.String(), "cannot be read") })
	if !serves("/moved")() {
		t.Error("the old routes have gone")
	}
	write("routes.yaml", one("/back"))
	until("back again", serves("/back"))
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// lines keeps what is logged.
type lines struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *lines) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.buf.Write(p) }
func (l *lines) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.buf.String() }

func ExampleParse() {
	routes, err := gatewayyaml.Parse([]byte("routes: [{prefix: /users, upstreams: ['http://users:8000'], timeout: 5s}]"))
	fmt.Println(routes[0].Prefix, routes[0].Timeout, err)
	// Output: /users 5s <nil>
}
