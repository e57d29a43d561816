package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

func TestOneBrokenInstanceOfThree(t *testing.T) {
	var good, bad atomic.Int32
	ok := func(w http.ResponseWriter, r *http.Request) { good.Add(1) }
	broken := upstream(t, func(w http.ResponseWriter, r *http.Request) { bad.Add(1); w.WriteHeader(500) })
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Balance: gateway.RoundRobin,
		Upstreams: []string{upstream(t, ok), broken, upstream(t, ok)}}}})
	failed := 0
	for range 60 {
		if do(t, "POST", url+"/a", "").StatusCode != 200 {
			failed++
		}
	}
	if failed != 5 || bad.Load() != 5 || good.Load() != 55 {
		t.Fatalf("%d failed, %d reached the broken one, %d the others", failed, bad.Load(), good.Load())
	}
}

func TestAllInstancesAreUsedWhenAllAreOpen(t *testing.T) {
	var status atomic.Int32
	status.Store(404)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, "theirs")
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1,
		Breaker: breaker.Config{Failures: 2}}}})
	for range 5 { // 4xx never trips
		if a := do(t, "GET", url+"/a", ""); a.StatusCode != 404 || a.text != "theirs" {
			t.Fatalf("%d %s", a.StatusCode, a.text)
		}
	}
	status.Store(500)
	for range 2 {
		if a := do(t, "GET", url+"/a", ""); a.StatusCode != 500 || a.text != "theirs" {
			t.Fatalf("%d %s", a.StatusCode, a.text)
		}
	}
	a := do(t, "GET", url+"/a", "")
	if a.StatusCode != 503 || a.Header.Get("Retry-After") != "30" || !strings.Contains(a.text, "problems/unavailable") {
		t.Fatalf("open: %d %v %s", a.StatusCode, a.Header, a.text)
	}
}

func TestRetriesFollowIdempotenceAndBudget(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	var n, m atomic.Int32
	flaky := upstream(t, func(w http.ResponseWriter, r *http.Request) { n.Add(1); w.WriteHeader(503) })
	fine := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		m.Add(1)
		_, _ = io.Copy(w, r.Body)
	})
	off := breaker.Config{Failures: -1}
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/dead", Upstreams: []string{gone.URL, fine}, Balance: gateway.RoundRobin, RetryBudget: -1, Breaker: off},
		{Prefix: "/flaky", Upstreams: []string{flaky, fine}, Balance: gateway.RoundRobin, RetryBudget: -1, Breaker: off},
		{Prefix: "/budget", Upstreams: []string{flaky, flaky + "/"}, Breaker: off},
	}})
	for range 6 { // nothing reached the dead one: a POST with a body may go elsewhere
		if a := do(t, "POST", url+"/dead", "payload"); a.StatusCode != 200 || a.text != "payload" {
			t.Fatalf("POST past a dead instance: %d %s", a.StatusCode, a.text)
		}
	}
	for range 6 {
		if a := do(t, "GET", url+"/flaky", ""); a.StatusCode != 200 {
			t.Fatalf("GET past a flaky instance: %d", a.StatusCode)
		}
	}
	for range 10 { // a body that was read is not sent again, so it cannot arrive without its beginning
		if a := do(t, "PUT", url+"/flaky", "payload"); a.StatusCode == 200 && a.text != "payload" {
			t.Fatalf("the second attempt of a PUT arrived as %q", a.text)
		}
	}
	n.Store(0)
	m.Store(0)
	for range 10 {
		do(t, "POST", url+"/flaky", "payload")
	}
	if n.Load()+m.Load() != 10 || n.Load() == 0 {
		t.Fatalf("10 POSTs were processed %d times", n.Load()+m.Load())
	}
	n.Store(0)
	for range 200 {
		do(t, "GET", url+"/budget", "")
	}
	if got := n.Load(); got < 220 || got > 235 {
		t.Fatalf("200 requests made %d attempts: the budget is 10 and a tenth", got)
	}
}

// During an outage of its only instance a service has as many requests waiting as the budget has retries.
func TestWaitsForRefusedConnectionsAreWithinTheBudget(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	for budget, want := range map[float64]int32{0.1: 15, -1: 50} { // 10, and a tenth of 50
		_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{gone.URL},
			Attempts: 1, RetryBudget: budget, DialWait: 2 * time.Second, Breaker: breaker.Config{Failures: -1}}}})
		var waited atomic.Int32
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				began := time.Now()
				res, err := http.Post(url+"/a", "text/plain", strings.NewReader("an order"))
				if err != nil {
					t.Error(err)
					return
				}
				if res.Body.Close(); res.StatusCode != http.StatusBadGateway {
					t.Errorf("got %s, want 502", res.Status)
				}
				if time.Since(began) > 1500*time.Millisecond {
					waited.Add(1)
				}
			})
		}
		all.Wait()
		if got := waited.Load(); got != want {
			t.Errorf("budget %g: %d of 50 requests waited, want %d", budget, got, want)
		}
	}
}

// When a kept connection breaks, net/http sends an idempotent request again on its own. An outage must not be amplified
// that way either.
func TestReplaysOfTheTransportCount(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns atomic.Int32
	var down atomic.Bool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() { // answers once, and hangs up on what comes next
				defer c.Close()
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err == nil && !down.Load() {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					_, _ = http.ReadRequest(r)
				}
			}()
		}
	}()
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a",
		Upstreams: []string{"http://" + l.Addr().String()}, Breaker: breaker.Config{Failures: -1}}}})
	for n := range 21 {
		if a := do(t, "GET", url+"/a", ""); a.StatusCode != 200 {
			t.Fatalf("%d: %d", n, a.StatusCode)
		}
	}
	if conns.Load() != 21 {
		t.Fatalf("%d connections: there were no replays", conns.Load())
	}
	down.Store(true)
	conns.Store(0)
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 502 || conns.Load() != 1 {
		t.Fatalf("%d after %d new connections: the replays have spent the budget", a.StatusCode, conns.Load())
	}
}

func TestSickInstancesGetNothing(t *testing.T) {
	var got atomic.Int32
	var well atomic.Bool
	sick := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			got.Add(1)
		} else if !well.Load() {
			w.WriteHeader(503)
		}
	})
	fine := upstream(t, func(http.ResponseWriter, *http.Request) {})
	gw, url := start(t, gateway.Config{HealthInterval: 5 * time.Millisecond,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{sick, fine}, Balance: gateway.RoundRobin}}})
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- gw.Run(ctx) }()
	time.Sleep(100 * time.Millisecond)
	for range 10 {
		do(t, "GET", url+"/a", "")
	}
	if got.Load() != 0 {
		t.Errorf("the sick instance got %d requests", got.Load())
	}
	well.Store(true)
	time.Sleep(100 * time.Millisecond)
	for range 10 {
		do(t, "GET", url+"/a", "")
	}
	if got.Load() != 5 {
		t.Errorf("well again, it got %d of 10 requests", got.Load())
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestFallbackAnswersWithoutInstances(t *testing.T) {
	_, url := start(t, gateway.Config{Auth: auth, Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}},
		Fallback: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %q", r.URL.Path, r.Header.Get("X-User-ID"))
		})})
	a := do(t, "GET", url+"/", "", "X-User-Id", "root")
	if a.StatusCode != 200 || a.text != `/ ""` || a.Header.Get("X-Correlation-ID") == "" {
		t.Fatalf("%d %s %v", a.StatusCode, a.text, a.Header)
	}
}

func ExampleGateway() {
	users := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "users: ", r.URL.Path)
	}))
	defer users.Close()
	gw, err := gateway.New(gateway.Config{
		Anonymous: true,
		Routes:    []gateway.Route{{Prefix: "/users", Upstreams: []string{users.URL}}},
	})
	if err != nil {
		panic(err)
	}
	defer gw.CloseIdleConnections()
	for _, path := range []string{"/users/7", "/orders"} {
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Println(w.Code, strings.SplitN(w.Body.String(), ",", 2)[0])
	}
	// Output:
	// 200 users: /7
	// 404 {"type":"https://sillar.dev/problems/not-found"
}
