package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

// fakeRegistry passes on what a test sends.
type fakeRegistry struct {
	updates chan []gateway.Instance
	watches atomic.Int32
	asked   atomic.Pointer[url.URL]
}

func newFakeRegistry() *fakeRegistry { return &fakeRegistry{updates: make(chan []gateway.Instance)} }

func (r *fakeRegistry) Watch(ctx context.Context, upstream *url.URL, update func([]gateway.Instance)) error {
	r.watches.Add(1)
	r.asked.Store(upstream)
	for {
		select {
		case <-ctx.Done():
			return nil
		case found := <-r.updates:
			update(found)
			r.updates <- nil // it is applied now
		}
	}
}

// send makes the gateway know these instances.
func (r *fakeRegistry) send(addresses ...string) {
	var found []gateway.Instance
	for _, a := range addresses {
		found = append(found, gateway.Instance{Address: strings.TrimPrefix(a, "http://")})
	}
	r.updates <- found
	<-r.updates
}

// run runs the gateway until the end of the test.
func run(t *testing.T, gw *gateway.Gateway) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func naming(t *testing.T, name string) string {
	return upstream(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, " ", r.Host, r.URL.Path) })
}

// Requests wait for the first instances of a service, and follow those that a registry finds.
func TestInstancesFollowTheRegistry(t *testing.T) {
	registry := newFakeRegistry()
	route := gateway.Route{Prefix: "/a", Upstreams: []string{"fake+http://users:8000/base"}, Balance: gateway.RoundRobin,
		DialWait: -1}
	gw, url := start(t, gateway.Config{
		HealthInterval: -1, Registries: map[string]gateway.Registry{"fake": registry}, Routes: []gateway.Route{route},
	})
	run(t, gw)
	first := make(chan answer, 1)
	go func() { first <- do(t, "GET", url+"/a/x", "") }()
	one, two := naming(t, "one"), naming(t, "two")
	registry.send(one)
	if a := <-first; a.text != "one users:8000/base/x" {
		t.Errorf("the first request: got %d %q, want the one instance under the service's name", a.StatusCode, a.text)
	}
	if u := registry.asked.Load(); u.String() != "http://users:8000/base" {
		t.Errorf("the registry was asked for %s", u)
	}
	registry.send(one, two, "no address", two)
	got := map[string]int{}
	for range 10 {
		got[do(t, "GET", url+"/a/x", "").text[:3]]++
	}
	if got["one"] != 5 || got["two"] != 5 {
		t.Errorf("of 10 requests: %v, want 5 each", got)
	}
	registry.send(two)
	route.MaxBody = 1
	if err := gw.Reload([]gateway.Route{route}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if a := do(t, "GET", url+"/a/x", ""); !strings.HasPrefix(a.text, "two") {
			t.Errorf("got %q from an instance that has left", a.text)
		}
	}
	if n := registry.watches.Load(); n != 1 {
		t.Errorf("a reload began %d watches of the same upstream, want none", n-1)
	}
	registry.send()
	if a := do(t, "GET", url+"/a/x", ""); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("without instances: got %s, want 503", a.Status)
	}
	route.Upstreams = []string{"unknown+http://users"}
	if err := gw.Reload([]gateway.Route{route}); err == nil || !strings.Contains(err.Error(), `no registry "unknown"`) {
		t.Errorf("a registry that there is not: %v", err)
	}
}

// An instance that leaves finishes what it does, and then has no connection.
func TestInstancesThatLeaveFinish(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) { testLeaving(t, scheme) })
	}
}

func testLeaving(t *testing.T, scheme string) {
	var open atomic.Int32
	proceed := make(chan struct{})
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			fmt.Fprint(w, "begun, ")
			_ = http.NewResponseController(w).Flush()
			<-proceed
			fmt.Fprint(w, "finished")
		}
	}))
	old.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	old.Config.Protocols = new(http.Protocols)
	old.Config.Protocols.SetHTTP1(true)
	old.Config.Protocols.SetUnencryptedHTTP2(true)
	old.Start()
	defer old.Close()
	registry := newFakeRegistry()
	gw, url := start(t, gateway.Config{HealthInterval: -1, Registries: map[string]gateway.Registry{"fake": registry},
		Routes: []gateway.Route{
			{Prefix: "/a", Upstreams: []string{"fake+" + scheme + "://users"}},
		}})
	run(t, gw)
	registry.send(old.URL)
	do(t, "GET", url+"/a", "")
	res, err := http.Get(url + "/a/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	registry.send()
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 503 {
		t.Errorf("got %s, want no instance", a.Status)
	}
	close(proceed)
	if text, err := io.ReadAll(res.Body); string(text) != "begun, finished" || err != nil {
		t.Errorf("the stream of the instance that left: %q %v", text, err)
	}
	for deadline := time.Now().Add(30 * time.Second); open.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections to an instance that left", open.Load())
		}
	}
}

// A refused connection makes the registry look again.
func TestRefusedConnectionsMakeTheRegistryLook(t *testing.T) {
	registry := newFakeRegistry()
	gw, url := start(t, gateway.Config{HealthInterval: -1, Registries: map[string]gateway.Registry{"fake": registry},
		Routes: []gateway.Route{
			{Prefix: "/a", Upstreams: []string{"fake+http://users"}, DialWait: -1},
		}})
	run(t, gw)
	registry.send("127.0.0.1:1")
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 502 {
		t.Errorf("got %s, want 502", a.Status)
	}
	for deadline := time.Now().Add(30 * time.Second); registry.watches.Load() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the registry was not asked again")
		}
	}
}

// Certificates of instances that are known by their address are verified by the name of the upstream.
func TestTLSNameOfDiscoveredInstances(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, r.Host)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	roots := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs // for example.com and 127.0.0.1
	registry, another := newFakeRegistry(), newFakeRegistry()
	gw, url := start(t, gateway.Config{
		UpstreamTLS: &tls.Config{RootCAs: roots}, HealthInterval: -1,
		Registries: map[string]gateway.Registry{"fake": registry, "another": another},
		Routes:     []gateway.Route{{Prefix: "/a", Upstreams: []string{"fake+https://example.com"}}},
	})
	run(t, gw)
	registry.send(strings.TrimPrefix(srv.URL, "https://"))
	if a := do(t, "GET", url+"/a", ""); a.text != "HTTP/2.0example.com" {
		t.Errorf("got %s %q", a.Status, a.text)
	}
	if err := gw.Reload([]gateway.Route{{Prefix: "/a", Upstreams: []string{"another+https://evil.test"}}}); err != nil {
		t.Fatal(err)
	}
	another.send(strings.TrimPrefix(srv.URL, "https://"))
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 502 {
		t.Errorf("a certificate of another name: got %s, want 502", a.Status)
	}
}

// failingRegistry fails until it is asked for the third time.
type failingRegistry struct {
	mu    sync.Mutex
	asked []time.Time
}

func (r *failingRegistry) Watch(ctx context.Context, _ *url.URL, update func([]gateway.Instance)) error {
	r.mu.Lock()
	r.asked = append(r.asked, time.Now())
	n := len(r.asked)
	r.mu.Unlock()
	if n < 3 {
		return fmt.Errorf("outage")
	}
	update([]gateway.Instance{{Address: "10.0.0.1:1"}})
	<-ctx.Done()
	return nil
}

// A registry that fails is asked again after a second, and logged once.
func TestRegistryThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logs
		registry := &failingRegistry{}
		gw := gateway.Must(gateway.New(gateway.Config{
			Anonymous: true, HealthInterval: -1, Registries: map[string]gateway.Registry{"fake": registry},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{"fake+http://users"}}},
		}))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- gw.Run(ctx) }()
		time.Sleep(10 * time.Second)
		registry.mu.Lock()
		defer registry.mu.Unlock()
		if n := len(registry.asked); n != 3 || registry.asked[2].Sub(registry.asked[0]) != 2*time.Second {
			t.Errorf("asked at %v, want three times in two seconds", registry.asked)
		}
		if n := strings.Count(log.String(), "instances cannot be found"); n != 1 || !strings.Contains(log.String(),
			"instances=1") {
			t.Errorf("%d lines of the outage, want one: %s", n, &log)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Instances of a higher priority get requests only while those of a lower one cannot answer.
func TestBackupsGetRequestsOnlyWhenOthersCannotAnswer(t *testing.T) {
	var broken, primaries, backups atomic.Int32
	primary := func(w http.ResponseWriter, _ *http.Request) {
		primaries.Add(1)
		w.WriteHeader(int(broken.Load()))
	}
	broken.Store(http.StatusOK)
	first, second := upstream(t, primary), upstream(t, primary)
	backup := upstream(t, func(http.ResponseWriter, *http.Request) { backups.Add(1) })
	registry := newFakeRegistry()
	gw, url := start(t, gateway.Config{
		Registries: map[string]gateway.Registry{"test": registry}, HealthInterval: -1,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{"test+http://a"},
			Breaker: breaker.Config{Failures: 2, OpenFor: time.Hour}}},
	})
	run(t, gw)
	instance := func(url string, priority int) gateway.Instance {
		return gateway.Instance{Address: strings.TrimPrefix(url, "http://"), Priority: priority}
	}
	registry.updates <- []gateway.Instance{instance(backup, 2), instance(first, 1), instance(second, 1)}
	<-registry.updates
	ask := func(times int) {
		t.Helper()
		for range times {
			if a := do(t, "GET", url+"/a", ""); a.StatusCode != http.StatusOK {
				t.Errorf("got %s", a.Status)
			}
		}
	}
	ask(20)
	if n := backups.Load(); n != 0 {
		t.Errorf("the backup got %d requests while the others answered, want 0", n)
	}
	broken.Store(http.StatusServiceUnavailable)
	for range 10 { // until both breakers are open
		do(t, "GET", url+"/a", "")
	}
	primaries.Store(0)
	backups.Store(0)
	ask(20)
	if p, b := primaries.Load(), backups.Load(); p != 0 || b != 20 {
		t.Errorf("with both breakers open %d requests went to them and %d to the backup, want 0 and 20", p, b)
	}
}
