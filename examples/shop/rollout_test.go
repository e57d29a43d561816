package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
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

// drainDelay is longer than probes and the gateway's idle connections take.
const drainDelay = "2500ms"

// twoOfEach is the shop with two replicas of every service behind a balancer.
type twoOfEach struct {
	t        *testing.T
	balancer *balancer
	dirs     [2]string
	args     map[string][2][]string
	replicas map[string]*[2]*process
}

func startTwoOfEach(t *testing.T) *twoOfEach {
	t.Helper()
	broker := testenv.RabbitMQ(t)
	redis, _ := testenv.Redis(t)
	offsets := []int{freeOffset(t), freeOffset(t)}
	s := &twoOfEach{t: t, balancer: newBalancer(t, freeOffset(t), offsets), dirs: [2]string{t.TempDir(), t.TempDir()},
		args: map[string][2][]string{}, replicas: map[string]*[2]*process{}}
	common := []string{"--broker", broker, "--service-secret", strings.Repeat("s", 40), "--keys-secret",
		strings.Repeat("k", 40), "--breaker-open", "1s", "--drain-delay", drainDelay, "--users-grpc",
		s.balancer.addr("grpc")}
	for _, b := range services {
		if b.at != nil {
			common = append(common, "--"+b.name+"-url", s.balancer.url(b.name))
		}
	}
	for _, b := range services {
		db := redis
		if b.name != "gateway" {
			db = testenv.Postgres(t)
		}
		var args [2][]string
		for r := range args {
			args[r] = append([]string{b.name, "--port-offset", strconv.Itoa(offsets[r]), "--db", db, "--data", s.dirs[r]},
				common...)
		}
		s.args[b.name], s.replicas[b.name] = args, new([2]*process)
		for r := range args {
			s.start(b.name, r)
		}
	}
	for _, b := range services {
		for r := range 2 {
			s.await(b.name, r)
		}
	}
	return s
}

func (s *twoOfEach) start(name string, r int) {
	s.replicas[name][r] = start(s.t, s.dirs[r], s.args[name][r]...)
}

// await waits until a replica is ready, and the balancer knows.
func (s *twoOfEach) await(name string, r int) {
	s.t.Helper()
	ready(s.t, s.replicas[name][r], s.balancer.replica(name, r))
	for end := time.Now().Add(time.Minute); !s.balancer.knows(name, r); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s is not seen to be ready", name)
		}
	}
}

// replace ends a replica with SIGTERM and starts it again, as a roll-out of a version does.
func (s *twoOfEach) replace(name string, r int) {
	s.t.Helper()
	if err := s.replicas[name][r].stop(syscall.SIGTERM); err != nil {
		s.t.Errorf("%s, on SIGTERM: %v", name, err)
	}
	s.start(name, r)
	s.await(name, r)
}

// Every process is replaced while clients are at work, one replica after the other, as in a roll-out: two gateways and
// two replicas of each service. No request is lost, those that must not be repeated included, and no client repeats one
// by itself: requests carry no Idempotency-Key.
func TestRollOutsLoseNoRequest(t *testing.T) {
	t.Parallel()
	const clients = 6
	s := startTwoOfEach(t)
	gateway := s.balancer.url("gateway")
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
				s.replace(b.name, r)
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
