package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

func TestReloadKeepsWhatIsKnown(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	r := gateway.Route{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1, Breaker: breaker.Config{Failures: 1}}
	gw, url := start(t, gateway.Config{Routes: []gateway.Route{r}})
	do(t, "GET", url+"/a", "")
	r.MaxBody = 1
	if err := gw.Reload([]gateway.Route{r}); err != nil {
		t.Fatal(err)
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 503 {
		t.Fatalf("after the reload the breaker is %d", a.StatusCode)
	}
}

func TestReloadLetsGo(t *testing.T) {
	var open atomic.Int32
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			for n := range 10 {
				fmt.Fprint(w, n)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
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
	old.Start()
	defer old.Close()
	gw, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{old.URL}}}})
	do(t, "GET", url+"/a", "")
	res, err := http.Get(url + "/a/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := gw.Reload([]gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}); err != nil {
		t.Fatal(err)
	}
	if a := do(t, "GET", url+"/a/x", ""); a.echo(t).URI != "/x" {
		t.Fatalf("the new route: %s", a.text)
	}
	if text, err := io.ReadAll(res.Body); string(text) != "0123456789" || err != nil {
		t.Fatalf("the stream of the old route: %q %v", text, err)
	}
	if err := gw.Reload(nil); err != nil {
		t.Fatal(err)
	}
	gw.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); open.Load() != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections to who is gone", open.Load())
		}
	}
}

func TestRateLimit(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{Auth: auth, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Routes: []gateway.Route{
			{Prefix: "/a", Upstreams: []string{up}, Public: []string{"/**"}, RateLimit: &gateway.RateLimit{Rate: 0.01,
				Burst: 2}},
			{Prefix: "/b", Upstreams: []string{up}, RateLimit: &gateway.RateLimit{Rate: 0.01, Burst: 1, BySubject: true}},
		}})
	for n, want := range []int{200, 200, 429} {
		a := do(t, "GET", url+"/a", "", "X-Forwarded-For", "6.6.6.6, 10.0.0.1")
		if a.StatusCode != want || want == 429 && a.Header.Get("Retry-After") != "100" {
			t.Fatalf("%d: %d %v", n, a.StatusCode, a.Header)
		}
	}
	a := do(t, "GET", url+"/a", "", "X-Forwarded-For", "6.6.6.6, 10.0.0.2")
	if a.StatusCode != 200 || a.echo(t).Header.Get("X-Forwarded-For") != "6.6.6.6, 10.0.0.2, 127.0.0.1" {
		t.Fatalf("another client: %d %s", a.StatusCode, a.text)
	}
	for n, c := range []struct {
		from string
		want int
		// one network is one client
	}{{"2001:db8::1", 200}, {"2001:db8::2", 200}, {"2001:db8::3:4", 429}, {"2001:db8:0:1::1", 200}} {
		if a := do(t, "GET", url+"/a", "", "X-Forwarded-For", c.from); a.StatusCode != c.want {
			t.Fatalf("%d: %s is %d", n, c.from, a.StatusCode)
		}
	}
	for n, c := range []struct {
		token string
		want  int
	}{{"ana", 200}, {"ana", 429}, {"root", 200}} {
		if a := do(t, "GET", url+"/b", "", "Authorization", "Bearer "+c.token); a.StatusCode != c.want {
			t.Fatalf("%d: %s is %d", n, c.token, a.StatusCode)
		}
	}
}

func TestMemoryLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := gateway.NewMemoryLimiter(3)
		take := func(key string) bool { q, _ := l.Allow(t.Context(), key, 2, 4); return q.OK }
		for range 4 {
			if !take("a") {
				t.Fatal("within the burst")
			}
		}
		_, _ = l.Allow(t.Context(), "rare", 1e-20, 1)
		if q, _ := l.Allow(t.Context(), "rare", 1e-20, 1); q.OK || q.RetryAfter < time.Hour {
			t.Fatalf("%+v", q)
		}
		q, _ := l.Allow(t.Context(), "a", 2, 4)
		if q.OK || q.RetryAfter != 500*time.Millisecond || q.Remaining != 0 || q.Reset != 2*time.Second {
			t.Fatalf("%+v", q)
		}
		time.Sleep(q.RetryAfter)
		if !take("a") || take("a") {
			t.Fatal("one token after half a second")
		}
		for _, k := range []string{"b", "c", "d"} {
			take(k)
		}
		if !take("a") {
			t.Fatal("forgotten, it begins anew")
		}
	})
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

// What a trusted proxy says of the outside goes on to the service and into the log; what anyone else says does not.
func TestForwardedByTrustedProxies(t *testing.T) {
	said := []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Port", "8443", "X-Forwarded-Prefix", "/eu/",
		"X-Forwarded-Proto", "wss, http"}
	for name, c := range map[string]struct {
		trusted []netip.Prefix
		said    []string
		want    [3]string // port, prefix, proto
		remote  string
	}{
		"trusted": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, said, [3]string{"8443", "/eu/a", "https"},
			"remote=6.6.6.6 "},
		"a list": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Port", "443, 80"},
			[3]string{"443", "/a", "http"}, "remote=127.0.0.1 "},
		"no port": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Port", "99999"},
			[3]string{"", "/a", "http"}, "remote=127.0.0.1 "},
		"no path": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Prefix", "//evil.example"},
			[3]string{"", "/a", "http"}, "remote=127.0.0.1 "},
		"a climber": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Prefix", "/a/../b"},
			[3]string{"", "/a", "http"}, "remote=127.0.0.1 "},
		"untrusted": {nil, said, [3]string{"", "/a", "http"}, "remote=127.0.0.1:"},
		"elsewhere": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, said, [3]string{"", "/a", "http"},
			"remote=127.0.0.1 "},
	} {
		log := &logs{}
		_, url := start(t, gateway.Config{
			Auth: auth, TrustedProxies: c.trusted, Logger: slog.New(slog.NewTextHandler(log, nil)),
			Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}, Public: []string{"/**"}}},
		})
		h := do(t, "GET", url+"/a/x", "", c.said...).echo(t).Header
		if got := [3]string{h.Get("X-Forwarded-Port"), h.Get("X-Forwarded-Prefix"),
			h.Get("X-Forwarded-Proto")}; got != c.want {
			t.Errorf("%s: the service heard %q, want %q", name, got, c.want)
		}
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(log.String()+" ",
			c.remote); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s: the log lacks %q: %s", name, c.remote, log)
				break
			}
		}
	}
}

func TestRoutesThatCannotMatch(t *testing.T) {
	for field, r := range map[string]gateway.Route{
		"prefix /a/*":              {Prefix: "/a/*", Upstreams: []string{"http://a"}},
		"prefix /{id}":             {Prefix: "/{id}", Upstreams: []string{"http://a"}},
		"upstreams port 99999":     {Prefix: "/a", Upstreams: []string{"http://a:99999"}},
		"upstreams port 0":         {Prefix: "/a", Upstreams: []string{"http://a:0"}},
		"upstreams without a host": {Prefix: "/a", Upstreams: []string{"http://:80"}},
	} {
		want, _, _ := strings.Cut(field, " ")
		var wrong *gateway.RouteError
		if err := r.Validate(); !errors.As(err, &wrong) || wrong.Field != want {
			t.Errorf("%s: %v", field, err)
		}
	}
}
