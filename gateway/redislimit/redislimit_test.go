package redislimit_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/gateway/redislimit"
	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
)

func TestLimiterAllowsTheBurstAcrossGateways(t *testing.T) {
	dsn, prefix := testenv.Redis(t)
	opt, err := redis.ParseURL(dsn)
	if err != nil {
		t.Fatal(err)
	}
	opt.ContextTimeoutEnabled = true
	var gateways [2]*redislimit.Limiter
	for n := range gateways {
		client := redis.NewClient(opt)
		t.Cleanup(func() { client.Close() })
		gateways[n] = redislimit.Must(redislimit.New(client, redislimit.Config{Prefix: prefix, Timeout: 5 * time.Second}))
	}
	takeBurst(t, gateways)
	if q, err := gateways[0].Allow(t.Context(), "another", 0.1, 1); !q.OK || err != nil {
		t.Fatalf("another key: %+v %v", q, err)
	}
	if q, err := gateways[0].Allow(t.Context(), "fast", 20, 1); !q.OK || err != nil {
		t.Fatal(err)
	}
	if q, err := gateways[0].Allow(t.Context(), "fast", 20, 1); q.OK || err != nil || q.RetryAfter > 50*time.Millisecond {
		t.Fatalf("%+v %v", q, err)
	}
	time.Sleep(60 * time.Millisecond)
	if q, err := gateways[1].Allow(t.Context(), "fast", 20, 1); !q.OK || err != nil {
		t.Fatalf("a token later: %+v %v", q, err)
	}
}

// takeBurst asks from both gateways at once.
func takeBurst(t *testing.T, gateways [2]*redislimit.Limiter) {
	t.Helper()
	var passed atomic.Int32
	var left sync.Map // what remained after each that passed
	var all sync.WaitGroup
	for n := range 40 { // both gateways count in one bucket
		all.Go(func() {
			q, err := gateways[n%2].Allow(t.Context(), "k", 0.1, 7)
			if err != nil {
				t.Error(err)
			}
			if q.OK {
				passed.Add(1)
				left.Store(int64(q.Remaining), true)
			} else if q.RetryAfter <= 0 || q.RetryAfter > 10*time.Second || q.Remaining != 0 || q.Reset < time.Minute {
				t.Errorf("got %+v", q)
			}
		})
	}
	all.Wait()
	if passed.Load() != 7 {
		t.Fatalf("%d passed, want the burst of 7", passed.Load())
	}
	for n := range int64(7) {
		if _, ok := left.Load(n); !ok {
			t.Errorf("no response said that %d remain", n)
		}
	}
}

// everybody is an authenticator: the token is the subject.
type everybody struct{}

func (everybody) Authenticate(_ context.Context, token string) (string, []string, map[string]any, error) {
	return token, nil, nil, nil
}

// Two gateways, one limit for each subject.
func TestGatewaysShareLimits(t *testing.T) {
	dsn, prefix := testenv.Redis(t)
	opt, err := redis.ParseURL(dsn)
	if err != nil {
		t.Fatal(err)
	}
	opt.ContextTimeoutEnabled = true
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	var gateways [2]*gateway.Gateway
	for n := range gateways {
		client := redis.NewClient(opt)
		t.Cleanup(func() { client.Close() })
		limiter := redislimit.Must(redislimit.New(client, redislimit.Config{Prefix: prefix, Timeout: 5 * time.Second}))
		gateways[n] = gateway.Must(gateway.New(gateway.Config{Auth: everybody{}, Limiter: limiter,
			Logger: slog.New(slog.DiscardHandler),
			Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up.URL}, RateLimit: &gateway.RateLimit{Rate: 0.01,
				Burst: 3, BySubject: true}}}}))
		t.Cleanup(gateways[n].CloseIdleConnections)
	}
	askBoth(t, gateways)
}

// askBoth asks the gateways in turn.
func askBoth(t *testing.T, gateways [2]*gateway.Gateway) {
	t.Helper()
	ask := func(n int, subject string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/a", nil)
		r.Header.Set("Authorization", "Bearer "+subject)
		w := httptest.NewRecorder()
		gateways[n%2].ServeHTTP(w, r)
		return w
	}
	for n := range 3 {
		if w := ask(n, "ana"); w.Code != 200 {
			t.Fatalf("%d: %d", n, w.Code)
		}
	}
	for n := range 2 {
		w := ask(n, "ana")
		if after, _ := strconv.Atoi(w.Header().Get("Retry-After")); w.Code != 429 || after < 90 || after > 100 {
			t.Errorf("gateway %d lets a fourth request pass: %d, Retry-After %q", n, w.Code, w.Header().Get("Retry-After"))
		}
	}
	if w := ask(0, "ben"); w.Code != 200 {
		t.Errorf("another subject: %d", w.Code)
	}
}

func TestRedisThatIsStuck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := redis.NewClient(&redis.Options{Addr: l.Addr().String(), ContextTimeoutEnabled: true, MaxRetries: -1})
	defer client.Close()
	limiter := redislimit.Must(redislimit.New(client, redislimit.Config{Timeout: 50 * time.Millisecond}))
	heedless := redis.NewClient(&redis.Options{})
	defer heedless.Close()
	if _, err := redislimit.New(heedless, redislimit.Config{}); err == nil {
		t.Error("a client that heeds no deadline was taken")
	}
	start := time.Now()
	passed := 0
	for range 200 { // the first waits, the others know
		q, err := limiter.Allow(t.Context(), "k", 0.01, 11)
		if err != nil {
			t.Fatal(err)
		}
		if q.OK {
			passed++
		}
	}
	if took := time.Since(start); passed != 11 || took > 2*time.Second {
		t.Errorf("%d passed in %s, want the burst of 11 and one wait", passed, took)
	}
}

// A burst that is larger than the client's pool is counted, and takes Redis for no dead one.
func TestBurstAboveThePoolIsCounted(t *testing.T) {
	dsn, prefix := testenv.Redis(t)
	opt, err := redis.ParseURL(dsn)
	if err != nil {
		t.Fatal(err)
	}
	opt.ContextTimeoutEnabled, opt.PoolSize = true, 2
	client := redis.NewClient(opt)
	defer client.Close()
	var log strings.Builder
	limiter := redislimit.Must(redislimit.New(client, redislimit.Config{Prefix: prefix, Timeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	var passed atomic.Int32
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			q, err := limiter.Allow(t.Context(), "burst", 0.01, 11)
			if err != nil {
				t.Error(err)
			}
			if q.OK {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	if passed.Load() != 11 || log.Len() > 0 {
		t.Errorf("%d of 1000 passed, want 11; log: %s", passed.Load(), &log)
	}
}

// Redis dies and returns: limits are counted by each gateway meanwhile, and the log says so once.
func TestRedisThatReturns(t *testing.T) {
	dsn, prefix := testenv.Redis(t)
	opt, err := redis.ParseURL(dsn)
	if err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.New(t, opt.Addr)
	opt.Addr, opt.ContextTimeoutEnabled, opt.MaxRetries = proxy.Addr(), true, -1
	client := redis.NewClient(opt)
	defer client.Close()
	var log strings.Builder
	limiter := redislimit.Must(redislimit.New(client, redislimit.Config{Prefix: prefix, Timeout: 100 * time.Millisecond,
		RetryAfter: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	allow := func() {
		t.Helper()
		if _, err := limiter.Allow(t.Context(), "k", 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	allow()
	proxy.Pause()
	for range 20 {
		allow()
	}
	proxy.Resume()
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(log.String(), "answers again") {
		if time.Now().After(deadline) {
			t.Fatalf("Redis was not asked again: %s", &log)
		}
		allow()
		time.Sleep(10 * time.Millisecond)
	}
	if n := strings.Count(log.String(), "does not answer"); n != 1 {
		t.Errorf("the outage was logged %d times: %s", n, &log)
	}
}

func ExampleNew() {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	limiter, err := redislimit.New(client, redislimit.Config{})
	if err != nil {
		panic(err)
	}
	gw, err := gateway.New(gateway.Config{
		Anonymous: true, Limiter: limiter,
		Routes: []gateway.Route{{Prefix: "/users", Upstreams: []string{"http://users:8000"},
			RateLimit: &gateway.RateLimit{Rate: 10}}},
	})
	if err != nil {
		panic(err)
	}
	defer gw.CloseIdleConnections()
}

// Every kind of client must heed deadlines, or a Redis that is silent stops the gateway.
func TestClientsThatHeedNoDeadline(t *testing.T) {
	for _, heeds := range []bool{false, true} {
		for name, client := range map[string]redis.UniversalClient{
			"single": redis.NewClient(&redis.Options{ContextTimeoutEnabled: heeds}),
			"cluster": redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"},
				ContextTimeoutEnabled: heeds}),
			"ring": redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: heeds}),
		} {
			if _, err := redislimit.New(client, redislimit.Config{}); (err == nil) != heeds {
				t.Errorf("%s, heeding %t: %v", name, heeds, err)
			}
			_ = client.Close()
		}
	}
}
