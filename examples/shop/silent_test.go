//go:build chaos

package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
)

// silence is one kind of connection, with a proxy in it.
type silence struct {
	what    string
	proxy   *faultproxy.Proxy
	service string
	flags   func(to string) []string
	bound   time.Duration // until an order goes all the way again
	log     string        // a part of what the service logs meanwhile, "" where it has nothing to say
}

// Under load the connections of each kind become silent, without an end, as a NAT does that has forgotten them. What
// does not depend on them goes on; what does goes on by new connections within a bound, and its service has logged why.
func TestSilentConnectionsAreReplaced(t *testing.T) {
	c := &collector{}
	collecting := httptest.NewServer(c)
	t.Cleanup(collecting.Close)
	redis, _ := testenv.Redis(t)
	f := &fleet{t, t.TempDir(), freeOffset(t), map[string][]string{}, map[string]*process{}}
	cases := f.silences(testenv.Postgres(t), testenv.RabbitMQ(t), redis, collecting.URL)
	for _, b := range services {
		if b.name == "gateway" {
			continue
		}
		f.start(b.name)
	}
	f.start("gateway")
	for _, p := range f.all() {
		ready(t, p, f.at(p.name))
	}
	gateway := f.at("gateway")
	token := signIn(t, gateway, "ana")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	load, enough := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer enough()
	for n := range 4 {
		clients.Go(func() {
			for i := 10_000 + n; load.Err() == nil; i += 4 {
				_, _ = place(load, token, gateway, i)
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	n := 0
	through := func(what string, bound time.Duration) {
		t.Helper()
		begin := time.Now()
		ctx, cancel := context.WithTimeout(ctx, bound+30*time.Second)
		defer cancel()
		n++
		id, err := place(ctx, token, gateway, 5*n+1) // with a card that is not declined
		if err != nil {
			t.Errorf("%s: no order within %v: %v", what, time.Since(begin), err)
			return
		}
		awaitNotified(t, ctx, token, gateway, map[string]int{id: 1}, bound+30*time.Second-time.Since(begin))
		if took := time.Since(begin); took > bound {
			t.Errorf("%s: an order took %v, want %v", what, took, bound)
		} else {
			t.Logf("%s: an order took %v", what, took)
		}
	}
	through("the start", 2*time.Minute)
	for _, s := range cases {
		before, logged := s.proxy.Connections(), len(f.log(s.service))
		s.proxy.Freeze()
		done := make(chan struct{})
		go func() { defer close(done); f.browse(s, token, before) }()
		through(s.what, s.bound)
		<-done
		if s.proxy.Connections() == before {
			t.Errorf("%s: no new connection was made", s.what)
		}
		for end := time.Now().Add(s.bound); s.log != "" && !strings.Contains(f.log(s.service)[logged:], s.log); {
			if time.Now().After(end) {
				t.Errorf("%s: %s does not log %q within %v", s.what, s.service, s.log, s.bound)
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// silences puts a proxy into each kind of connection, and the addresses into the arguments of the services.
func (f *fleet) silences(postgres, broker, redis, collector string) []silence {
	f.t.Helper()
	own := func(service string) string { return strings.TrimPrefix(f.at(service), "http://") }
	list := []silence{
		{"gRPC", faultproxy.New(f.t, at("grpc", f.offset)), "orders",
			func(to string) []string { return []string{"--users-grpc", to} }, 40 * time.Second, "breaker changed state"},
		{"HTTP between services", faultproxy.New(f.t, own("payments")), "orders",
			func(to string) []string { return []string{"--payments-url", "http://" + to} }, 30 * time.Second, ""}, // the next attempt succeeds,
		{"PostgreSQL", faultproxy.New(f.t, hostOf(f.t, postgres)), "orders",
			func(to string) []string { return []string{"--db", swapHost(f.t, postgres, to)} }, 25 * time.Second, "deadline exceeded"},
		{"RabbitMQ", faultproxy.New(f.t, hostOf(f.t, broker)), "orders",
			func(to string) []string { return []string{"--broker", swapHost(f.t, broker, to)} }, 60 * time.Second, "rabbitmq: "},
		{"Redis", faultproxy.New(f.t, hostOf(f.t, redis)), "gateway",
			func(to string) []string { return []string{"--db", swapHost(f.t, redis, to)} }, 20 * time.Second, "redislimit: "},
		{"OTLP", faultproxy.New(f.t, hostOf(f.t, collector)), "orders", nil, 20 * time.Second, "spans"},
	}
	f.t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+list[len(list)-1].proxy.Addr())
	for _, b := range services {
		f.args[b.name] = append(f.arguments(b.name), "--broker", broker)
		if b.name != "gateway" && b.name != "orders" {
			f.args[b.name] = append(f.args[b.name], "--db", testenv.Postgres(f.t))
		}
	}
	for _, s := range list {
		if s.flags != nil {
			f.args[s.service] = append(f.args[s.service], s.flags(s.proxy.Addr())...)
		}
	}
	return list
}

// browse reads the catalogue while connections are silent, until new ones are made or the bound is over.
func (f *fleet) browse(s silence, token string, before int) {
	f.t.Helper()
	for end := time.Now().Add(s.bound); s.proxy.Connections() == before && time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
		code, _, err := send(ctx, token, "GET", f.at("gateway")+"/products/api/v1/products", "")
		cancel()
		if code != http.StatusOK {
			f.t.Errorf("%s: the catalogue: %d, %v", s.what, code, err)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// log returns what a service has logged.
func (f *fleet) log(service string) string {
	f.t.Helper()
	text, err := os.ReadFile(f.processes[service].log)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

func hostOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func swapHost(t *testing.T, dsn, host string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = host
	return u.String()
}
