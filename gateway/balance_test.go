package gateway

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// rotationOf makes a route whose instances are never asked.
func rotationOf(t *testing.T, r Route, weights ...int) (*route, *rotation) {
	t.Helper()
	r.Prefix = "/a"
	if r.Upstreams == nil {
		for n := range weights {
			r.Upstreams = append(r.Upstreams, fmt.Sprintf("http://instance-%d", n))
		}
	}
	g := Must(New(Config{Anonymous: true, Logger: slog.New(slog.DiscardHandler), Routes: []Route{r}}))
	rt := g.table.Load().routes[0]
	rot := rt.rotation.Load()
	for n, w := range weights {
		rot.all[n].weight = float64(w)
	}
	rot = newRotation(rot.all)
	rt.rotation.Store(rot)
	return rt, rot
}

func drawn(r *route, rot *rotation, times int) []int {
	counts := make([]int, len(rot.all))
	for range times {
		var fit []int
		for n := range rot.all {
			fit = append(fit, n)
		}
		counts[fit[r.choose(rot, fit)]]++
	}
	return counts
}

// around reports whether a count of a share p of n draws is within six standard deviations.
func around(count, n int, p float64) bool {
	d := float64(count) - float64(n)*p
	return d*d <= 36*float64(n)*p*(1-p)
}

func TestLeastRequestsTakesTheLeastBusy(t *testing.T) {
	r, rot := rotationOf(t, Route{Balance: LeastRequests}, 1, 1, 1, 1)
	for n, busy := range []int64{3, 1, 2, 1} {
		rot.all[n].busy.Store(busy)
	}
	if c := drawn(r, rot, 1000); c[0]+c[2] != 0 || !around(c[1], 1000, 0.5) {
		t.Errorf("got %v, want the second and the fourth, evenly", c)
	}
}

func TestPowerOfTwoAvoidsTheBusiest(t *testing.T) {
	r, rot := rotationOf(t, Route{}, 1, 1, 1)
	rot.all[1].busy.Store(9)
	if c := drawn(r, rot, 1000); c[1] != 0 || !around(c[0], 1000, 0.5) {
		t.Errorf("got %v, want nothing for the second", c)
	}
}

func TestWeightsOfUpstreams(t *testing.T) {
	for _, b := range []Balance{PowerOfTwo, LeastRequests, RoundRobin} {
		r, rot := rotationOf(t, Route{Balance: b, Upstreams: []string{"http://stable", "http://canary", "http://off"},
			Weights: []int{9, 1, 0}})
		rot.all[0].busy.Store(100) // how busy it is does not move the canary's share
		if c := drawn(r, rot, 10_000); len(c) != 2 || !around(c[1], 10_000, 0.1) {
			t.Errorf("%s: got %v, want a tenth for the canary", b, c)
		}
		fit := []int{0}
		if r.choose(rot, fit) != 0 {
			t.Errorf("%s: with one upstream left, want that", b)
		}
	}
}

func TestWeightsOfInstances(t *testing.T) {
	r, rot := rotationOf(t, Route{Balance: RoundRobin}, 5, 1, 2)
	if c := drawn(r, rot, 80); c[0] != 50 || c[1] != 10 || c[2] != 20 {
		t.Errorf("round robin: got %v, want 50 10 20", c)
	}
	r, rot = rotationOf(t, Route{Balance: LeastRequests}, 3, 1)
	if c := drawn(r, rot, 10_000); !around(c[1], 10_000, 0.25) {
		t.Errorf("got %v, want a quarter for the second", c)
	}
	rot.all[0].busy.Store(2)
	if c := drawn(r, rot, 10_000); !around(c[1], 10_000, 0.5) {
		t.Errorf("got %v, want a half for the second, since the first is busy", c)
	}
}

func TestSlowStartGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, rot := rotationOf(t, Route{SlowStart: 10 * time.Second}, 1, 1)
		time.Sleep(time.Minute)
		rot.all[1].joined = time.Now()
		for _, c := range []struct {
			after time.Duration
			share float64
		}{{0, 0.1}, {5 * time.Second, 0.5}, {20 * time.Second, 1}} {
			began := time.Now()
			rot.all[1].joined = began.Add(-c.after)
			want := c.share / (1 + c.share)
			if got := drawn(r, rot, 10_000); c.share < 1 && !around(got[1], 10_000, want) || c.share == 1 && r.warming(rot) {
				t.Errorf("%s after it joined: got %v, want a share of %.2f", c.after, got, want)
			}
		}
	})
}

// A health check that fails once, or succeeds once, changes nothing before the threshold.
func TestHealthThresholds(t *testing.T) {
	r, rot := rotationOf(t, Route{UnhealthyAfter: 3, HealthyAfter: 2}, 1)
	i := rot.all[0].instance
	for n, c := range []struct{ failed, unhealthy bool }{
		{true, false}, {true, false}, {false, false}, {true, false}, {true, false}, {true, true}, {false, true}, {true, true},
		{false, true}, {false, false},
	} {
		r.g.checked(t.Context(), r, i, c.failed)
		if i.unhealthy.Load() != c.unhealthy {
			t.Errorf("check %d: unhealthy is %v, want %v", n, i.unhealthy.Load(), c.unhealthy)
		}
	}
}

var routedRequests = []struct {
	method, host, path string
	header             []string
	want               string
}{
	{"POST", "x", "/a/b", nil, "a"},
	{"GET", "x", "/a/b", nil, "a-read"},
	{"HEAD", "x", "/a", nil, "a-read"},
	{"POST", "x", "/a", []string{"X-Channel", "beta"}, "a-beta"},
	{"POST", "x", "/a", []string{"X-Channel", "gamma"}, "a"},
	{"GET", "x", "/a", []string{"X-Channel", "beta"}, "a-read-beta"},
	{"POST", "x", "/a", []string{"X-Channel", "beta", "X-Tenant", "7"}, "a-tenant"},
	{"GET", "x", "/b", nil, "any"},
	{"GET", "shop.example:8080", "/a", nil, "shop"},
	{"GET", "SHOP.EXAMPLE.", "/a", nil, "shop"},
	{"POST", "shop.example", "/a", nil, "below-shop"},
	{"POST", "eu.shop.example", "/a", nil, "below-shop"},
	{"GET", "eu.shop.example", "/a", nil, "below"},
	{"GET", "www.example", "/a", nil, "below"},
	{"GET", "example", "/b", nil, "any"},
	{"GET", "evilshop.example.net", "/b", nil, "any"},
	{"GET", "[::1]:80", "/b", nil, "any"},
}

// What selects a route: host, then prefix, then method and headers.
func TestRoutesByHostMethodAndHeader(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	at := []string{up.URL}
	g := Must(New(Config{Anonymous: true, Logger: slog.New(slog.DiscardHandler), Routes: []Route{
		{Name: "any", Prefix: "/", Upstreams: at},
		{Name: "a", Prefix: "/a", Upstreams: at},
		{Name: "a-read", Prefix: "/a", Methods: []string{"GET"}, Upstreams: at},
		{Name: "a-beta", Prefix: "/a", Headers: map[string]string{"X-Channel": "beta"}, Upstreams: at},
		{Name: "a-read-beta", Prefix: "/a", Methods: []string{"GET"}, Headers: map[string]string{"x-channel": "beta"},
			Upstreams: at},
		{Name: "a-tenant", Prefix: "/a", Headers: map[string]string{"X-Channel": "beta", "X-Tenant": "*"}, Upstreams: at},
		{Name: "shop", Prefix: "/", Hosts: []string{"Shop.example"}, Upstreams: at},
		{Name: "below", Prefix: "/", Hosts: []string{"*.example"}, Upstreams: at},
		{Name: "below-shop", Prefix: "/a", Hosts: []string{"*.shop.example", "shop.example"}, Methods: []string{"POST"},
			Upstreams: at},
	}}))
	for _, c := range routedRequests {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Host = c.host
		for n := 0; n < len(c.header); n += 2 {
			r.Header.Set(c.header[n], c.header[n+1])
		}
		if rt := g.table.Load().find(c.path, r); rt == nil || rt.Name != c.want {
			t.Errorf("%s %s%s %v: got %v, want %s", c.method, c.host, c.path, c.header, rt, c.want)
		}
	}
	for field, r := range map[string]Route{
		"hosts a port":      {Hosts: []string{"a:80"}},
		"hosts a star":      {Hosts: []string{"a.*"}},
		"hosts a path":      {Hosts: []string{"a/b"}},
		"hosts none":        {Hosts: []string{""}},
		"methods a case":    {Methods: []string{"get"}},
		"methods a tunnel":  {Methods: []string{"CONNECT"}},
		"headers a name":    {Headers: map[string]string{"a b": "c"}},
		"headers a value":   {Headers: map[string]string{"a": ""}},
		"weights number":    {Weights: []int{1, 2}},
		"weights all zero":  {Weights: []int{0}},
		"weights below":     {Weights: []int{-1}},
		"balance unknown":   {Balance: "fair"},
		"transport half":    {Transport: &Transport{TLS: &TransportTLS{CertFile: "a"}}},
		"transport below":   {Transport: &Transport{DialTimeout: -1}},
		"token_cookie name": {TokenCookie: "a b"},
		"token_protocol no": {TokenProtocol: "bearer."},
		"rate_limit two":    {RateLimit: &RateLimit{Rate: 1, ByHeader: "a", Key: "b"}},
		"cors none":         {CORS: &CORS{}},
		"healthy_after 0":   {HealthyAfter: -1},
		"unhealthy_after 0": {UnhealthyAfter: -1},
	} {
		want, _, _ := strings.Cut(field, " ")
		r.Prefix, r.Upstreams = "/a", at
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), ": "+want+": ") {
			t.Errorf("%s: got %v, want an error of %s", field, err, want)
		}
	}
}

// Requests wait for an instance that has just begun to refuse connections, and no longer for one that goes on to.
func TestDialWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, rot := rotationOf(t, Route{}, 1)
		i := rot.all[0].instance
		refusal := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		for _, c := range []struct {
			after time.Duration
			err   error
			want  bool
		}{{0, refusal, true}, {time.Second, refusal, true}, {999 * time.Millisecond, refusal, true},
			{time.Millisecond, refusal, false}, {time.Hour, refusal, false}} {
			time.Sleep(c.after)
			if r.awaits(i, c.err) != c.want {
				t.Errorf("%s later: want waiting %v", c.after, c.want)
			}
		}
		i.accepted()
		if !r.awaits(i, refusal) || r.awaits(i, errSilent) || r.awaits(i, nil) {
			t.Error("after it accepted: want waiting for a refusal alone")
		}
		r.DialWait = -1
		if r.awaits(i, refusal) {
			t.Error("with a negative DialWait: want none")
		}
	})
}

// The only instance of a service gets requests also while its breaker probes.
func TestProbesEjectNoOnlyInstance(t *testing.T) {
	for ejection, want := range map[float64]bool{0: true, 1: false} {
		r, rot := rotationOf(t, Route{MaxEjection: ejection, Breaker: breaker.Config{Failures: 1}}, 1)
		b := rot.all[0].breaker
		done, err := b.Allow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		done(errSilent)
		b.HalfOpen()
		if _, _, err := r.pick(t.Context(), nil); err != nil { // the probe, which does not end
			t.Fatal(err)
		}
		if i, _, err := r.pick(t.Context(), nil); (i != nil) != want {
			t.Errorf("MaxEjection %v: got %v %v, want an instance: %v", ejection, i, err, want)
		}
	}
}
