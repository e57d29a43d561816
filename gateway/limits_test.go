package gateway_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

var limitedCalls = []struct {
	from string
	want int
	// one network is one client
}{{"2001:db8::1", 200}, {"2001:db8::2", 200}, {"2001:db8::3:4", 429}, {"2001:db8:0:1::1", 200}}

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
	for n, c := range limitedCalls {
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
