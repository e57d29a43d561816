package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/scenario"
	"github.com/sillar-go/sillar/internal/testenv"
)

var rollouts = flag.Int("rollouts", 1, "how often TestRollOutsLoseNoRequest replaces every process of the shop")

// podBalancer is to two replicas what a Service of Kubernetes is: a new connection goes to a replica that is ready, and
// stays with it.
type podBalancer struct {
	listener net.Listener
	backends []string // host:port
	pool     *readiness
	next     atomic.Int64
}

// readiness polls /ready of the replicas of a service, as kubelet does.
type readiness struct {
	urls  []string
	ready []atomic.Bool
}

const probePeriod = 250 * time.Millisecond

func (r *readiness) run(ctx context.Context) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		for i, url := range r.urls {
			res, err := client.Get(url + "/ready")
			if err == nil {
				_ = res.Body.Close()
			}
			r.ready[i].Store(err == nil && res.StatusCode == http.StatusOK)
		}
		time.Sleep(probePeriod)
	}
}

func newPodBalancer(t *testing.T, pool *readiness, backends ...string) *podBalancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &podBalancer{listener: l, backends: backends, pool: pool}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go b.forward(conn)
		}
	}()
	return b
}

func (b *podBalancer) forward(client net.Conn) {
	defer client.Close()
	for range b.backends {
		i := int(b.next.Add(1)) % len(b.backends)
		if !b.pool.ready[i].Load() {
			continue
		}
		server, err := net.Dial("tcp", b.backends[i])
		if err != nil {
			return // as kube-proxy does: the client sees a connection that ends
		}
		defer server.Close()
		copied := make(chan struct{}, 2)
		pass := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_ = to.(*net.TCPConn).CloseWrite()
			copied <- struct{}{}
		}
		go pass(server, client)
		go pass(client, server)
		<-copied
		<-copied
		return
	}
}

// twoOfEach starts two replicas of every service behind balancers.
type twoOfEach struct {
	t         *testing.T
	args      [2]map[string][]string
	dirs      [2]string
	offsets   [2]int
	processes [2]map[string]*process
	pools     map[string]*readiness
	balancers map[string]*podBalancer
}

func startTwoOfEach(t *testing.T) *twoOfEach {
	t.Helper()
	broker := testenv.RabbitMQ(t)
	redis, _ := testenv.Redis(t)
	s := &twoOfEach{t: t, pools: map[string]*readiness{}, balancers: map[string]*podBalancer{}}
	for r := range 2 {
		s.dirs[r], s.args[r], s.processes[r] = t.TempDir(), map[string][]string{}, map[string]*process{}
		s.offsets[r] = freeOffset(t)
	}
	for _, b := range services {
		pool := &readiness{ready: make([]atomic.Bool, 2)}
		var backends, grpc []string
		for r := range 2 {
			pool.urls = append(pool.urls, s.at(r, b.name))
			backends = append(backends, strings.TrimPrefix(s.at(r, b.name), "http://"))
			grpc = append(grpc, net.JoinHostPort("127.0.0.1", strconv.Itoa(ports["grpc"]+s.offsets[r])))
		}
		s.pools[b.name], s.balancers[b.name] = pool, newPodBalancer(t, pool, backends...)
		if b.name == "users" {
			s.balancers["grpc"] = newPodBalancer(t, pool, grpc...)
		}
	}
	peers := []string{"--users-grpc", s.balancers["grpc"].listener.Addr().String()}
	for _, b := range services {
		if b.name != "gateway" {
			peers = append(peers, "--"+b.name+"-url", s.behind(b.name))
		}
	}
	for _, b := range services {
		db := redis
		if b.name != "gateway" {
			db = testenv.Postgres(t)
		}
		for r := range 2 {
			s.args[r][b.name] = append([]string{b.name, "--port-offset", strconv.Itoa(s.offsets[r]), "--broker", broker,
				"--service-secret", strings.Repeat("s", 40), "--keys-secret", strings.Repeat("k", 40), "--db", db,
				"--breaker-open", "1s", "--data", s.dirs[r], "--drain-delay", (4 * probePeriod).String()}, peers...)
			s.start(r, b.name)
		}
		go pollUntilEnd(t, s.pools[b.name])
	}
	for r := range 2 {
		for _, b := range services {
			s.await(r, b.name)
		}
	}
	return s
}

// await waits until a replica is ready, and its balancers know.
func (s *twoOfEach) await(replica int, name string) {
	s.t.Helper()
	ready(s.t, s.processes[replica][name], s.at(replica, name))
	for end := time.Now().Add(time.Minute); !s.pools[name].ready[replica].Load(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s is not seen to be ready", name)
		}
	}
}

func pollUntilEnd(t *testing.T, pool *readiness) { pool.run(t.Context()) }

func (s *twoOfEach) start(replica int, name string) {
	s.processes[replica][name] = start(s.t, s.dirs[replica], s.args[replica][name]...)
}

func (s *twoOfEach) at(replica int, name string) string {
	return "http://127.0.0.1:" + strconv.Itoa(ports[name]+s.offsets[replica])
}

func (s *twoOfEach) behind(name string) string {
	return "http://" + s.balancers[name].listener.Addr().String()
}

// replace ends a replica with SIGTERM and starts it again, as a roll-out of a version does.
func (s *twoOfEach) replace(replica int, name string) {
	s.t.Helper()
	if err := s.processes[replica][name].stop(syscall.SIGTERM); err != nil {
		s.t.Errorf("%s, on SIGTERM: %v", name, err)
	}
	s.start(replica, name)
	s.await(replica, name)
}

// Every process is replaced while clients are at work, one replica after the other, as in a roll-out: two gateways and
// two replicas of each service. No request is lost, those that must not be repeated included, and no client repeats one
// by itself: requests carry no Idempotency-Key.
func TestRollOutsLoseNoRequest(t *testing.T) {
	t.Parallel()
	const clients = 6
	s := startTwoOfEach(t)
	gateway := s.behind("gateway")
	token := signIn(t, gateway, "ana")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var (
		wg           sync.WaitGroup
		sent, orders atomic.Int64
		mu           sync.Mutex
		lost         []string
	)
	for range clients {
		client := &http.Client{Transport: &http.Transport{}, Timeout: 40 * time.Second}
		wg.Go(func() {
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				what, err := oneRequest(client, token, gateway)
				sent.Add(1)
				switch {
				case err != nil:
					mu.Lock()
					lost = append(lost, fmt.Sprintf("%s %s: %v", time.Now().Format("05.000"), what, err))
					mu.Unlock()
				case what == "order":
					orders.Add(1)
				}
				time.Sleep(rand.N(40 * time.Millisecond))
			}
		})
	}
	began := time.Now()
	for n := range *rollouts {
		for _, b := range services {
			for r := range 2 {
				s.replace(r, b.name)
				if mu.Lock(); len(lost) > 0 {
					t.Logf("roll-out %d: %s of %s: %d lost", n+1, []string{"first", "second"}[r], b.name, len(lost))
				}
				mu.Unlock()
			}
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d roll-outs of %d processes in %s: %d requests, %d orders among them, %d lost", *rollouts, 2*len(services),
		time.Since(began).Round(time.Second), sent.Load(), orders.Load(), len(lost))
	for _, l := range lost[:min(len(lost), 10)] {
		t.Error(l)
	}
	if orders.Load() == 0 {
		t.Error("no order was placed")
	}
	if err := scenario.Invariants(t.Context(), scenario.Config{Gateway: gateway, Admin: "admin",
		AdminPassword: "admin-password", Out: t.Output()}); err != nil {
		t.Error(err)
	}
}

// oneRequest sends a request of a random kind.
func oneRequest(client *http.Client, token, gateway string) (what string, err error) {
	method, body := "GET", ""
	var path string
	switch rand.N(6) {
	case 0:
		what, method, path = "order", "POST", "/orders/api/v1/orders"
		body = `{"items":[{"product_id":"prod-mug","quantity":1}],"payment_method":"pm_card_visa"}`
	case 1:
		what, path = "orders", "/orders/api/v1/orders?limit=5"
	case 2:
		what, path = "notifications", "/notifications/api/v1/notifications?limit=5"
	case 3:
		what, path = "keys", "/users/.well-known/jwks.json"
	default:
		what, path = "products", "/products/api/v1/products"
	}
	req, err := http.NewRequest(method, gateway+path, strings.NewReader(body))
	if err != nil {
		return what, err
	}
	req.GetBody = nil // net/http must not repeat it
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return what, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return what, err
	}
	if res.StatusCode >= 400 {
		return what, errors.New(res.Status + " " + string(text[:min(len(text), 300)]))
	}
	return what, nil
}
