//go:build chaos

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/scenario"
	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
)

var (
	chaosFor  = flag.Duration("chaos", time.Minute, "how long TestChaos lasts")
	chaosSeed = flag.Uint64("chaos-seed", 1, "the seed of the schedule of TestChaos")
)

// chaos is the shop with two replicas of every service, over a RabbitMQ cluster of three nodes, a PostgreSQL with a
// synchronous standby, and Redis.
type chaos struct {
	t        *testing.T
	begin    time.Time
	rand     *rand.Rand // of the schedule alone
	nodes    []*testenv.Node
	proxies  []*faultproxy.Proxy // before the nodes
	postgres *testenv.PostgresPair
	failed   bool // over
	balancer *balancer
	args     map[string][2][]string
	replicas map[string]*[2]*process
}

func (c *chaos) logf(format string, args ...any) {
	c.t.Helper()
	c.t.Logf("%6.1fs  %s", time.Since(c.begin).Seconds(), fmt.Sprintf(format, args...))
}

// Replicas and servers are killed, frozen, cut off, replaced and failed over, by the schedule of a seed, while clients
// place orders. In the end money, stock and sagas agree, and every order has notified its customer of each thing once.
func TestChaos(t *testing.T) {
	c := startChaos(t)
	gateway := c.balancer.url("gateway")
	token, admin := signIn(t, gateway, "ana"), signIn(t, gateway, "admin")
	ctx, cancel := context.WithTimeout(t.Context(), *chaosFor+10*time.Minute)
	defer cancel()
	const stock = 1_000_000
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // inventory learns of the product
		code, body := ask(t, ctx, admin, "PUT", gateway+"/inventory/api/v1/inventory/prod-mug",
			fmt.Sprintf(`{"on_hand":%d}`, stock))
		if code == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("set the stock: %d %v", code, body)
		}
	}
	load, enough := context.WithCancel(ctx)
	var mu sync.Mutex
	ids := map[string]int{}
	var clients sync.WaitGroup
	for n := range 4 {
		clients.Go(func() {
			for i := n; load.Err() == nil; i += 4 {
				id, err := place(ctx, token, gateway, i)
				if err != nil {
					t.Errorf("order %d: %v", i, err)
					return
				}
				mu.Lock()
				ids[id]++
				mu.Unlock()
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	for end := c.begin.Add(*chaosFor); time.Now().Before(end); {
		c.disturb()
		time.Sleep(c.between(time.Second, 4*time.Second))
	}
	enough()
	c.logf("all is left alone")
	clients.Wait()
	c.logf("%d orders were placed", len(ids))
	for id, n := range ids {
		if n != 1 {
			t.Errorf("order %s is that of %d keys", id, n)
		}
	}
	err := scenario.Invariants(ctx, scenario.Config{Gateway: gateway, Admin: "admin", AdminPassword: "admin-password",
		Out: t.Output()})
	if err != nil {
		t.Errorf("invariants: %v", err)
	}
	paid := c.postgres.Value(t, "orders", "SELECT count(*) FROM orders WHERE status = 'paid'")
	left := c.postgres.Value(t, "inventory", fmt.Sprintf("SELECT %d - on_hand FROM stocks WHERE id = 'prod-mug'", stock))
	c.logf("%s orders are paid", paid)
	if left != paid {
		t.Errorf("%s pieces have left the stock, and %s orders of one are paid", left, paid)
	}
	_ = awaitNotified(t, ctx, token, gateway, ids, 3*time.Minute)
	for _, name := range []string{"users", "products", "orders"} {
		// What a relay had published when it was killed is published again when its lease ends.
		held := ""
		for end := time.Now().Add(2 * time.Minute); held != "0" && time.Now().Before(end); time.Sleep(time.Second) {
			held = c.postgres.Value(t, name, "SELECT count(*) FROM sillar_outbox")
		}
		if held != "0" {
			t.Errorf("the outbox of %s holds %s events", name, held)
		}
	}
	for what, n := range notified(t, ctx, token, gateway) { // now that nothing is on its way
		if n != 1 {
			t.Errorf("%s: %d notifications", what, n)
		}
	}
	if t.Failed() {
		t.Logf("again with: make chaos SEED=%d SEEDS=1 FOR=%s", *chaosSeed, *chaosFor)
	}
}

func startChaos(t *testing.T) *chaos {
	t.Helper()
	redis, _ := testenv.Redis(t)
	c := &chaos{t: t, rand: rand.New(rand.NewPCG(*chaosSeed, 0)), nodes: testenv.RabbitMQCluster(t, 3),
		postgres: testenv.PostgresCluster(t), args: map[string][2][]string{}, replicas: map[string]*[2]*process{}}
	var hosts []string
	for _, n := range c.nodes {
		p := faultproxy.New(t, n.Host())
		c.proxies, hosts = append(c.proxies, p), append(hosts, p.Addr())
	}
	offsets := freeOffsets(t, 3)
	c.balancer = newBalancer(t, offsets[0], offsets[1:])
	dir, err := os.MkdirTemp("", "shop-chaos-") //nolint:usetesting // it is kept after a failure
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the logs of the services are kept in %s", dir)
		} else {
			_ = os.RemoveAll(dir)
		}
	})
	for _, b := range services {
		db := redis
		if b.name != "gateway" {
			c.postgres.SQL(t, "CREATE DATABASE "+b.name)
			db = c.postgres.URL(b.name)
		}
		var args [2][]string
		for r := range args {
			data := filepath.Join(dir, fmt.Sprint(b.name, r))
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			args[r] = []string{b.name, "--port-offset", fmt.Sprint(offsets[1+r]), "--data", data, "--db", db, "--log",
				filepath.Join(data, "shop.log"),
				"--broker", "amqp://guest:guest@" + strings.Join(hosts, ",") + "/", "--breaker-open", "1s",
				"--service-secret", strings.Repeat("s", 40), "--keys-secret", strings.Repeat("k", 40),
				"--users-grpc", c.balancer.addr("grpc")}
			for _, peer := range services {
				if peer.at != nil {
					args[r] = append(args[r], "--"+peer.name+"-url", c.balancer.url(peer.name))
				}
			}
		}
		c.args[b.name], c.replicas[b.name] = args, new([2]*process)
		for r := range args {
			c.start(b.name, r)
		}
	}
	for _, b := range services {
		for r, p := range c.replicas[b.name] {
			ready(t, p, c.balancer.replica(b.name, r))
		}
		ready(t, c.replicas[b.name][0], c.balancer.url(b.name)) // it knows them too
	}
	c.begin = time.Now()
	return c
}

func (c *chaos) start(name string, r int) {
	c.t.Helper()
	c.replicas[name][r] = start(c.t, filepath.Dir(c.args[name][r][8]), c.args[name][r]...)
}

func (c *chaos) between(low, high time.Duration) time.Duration {
	return low + time.Duration(c.rand.Int64N(int64(high-low)))
}

// disturb does one thing of the schedule, and undoes it.
func (c *chaos) disturb() {
	c.t.Helper()
	names := make([]string, 0, len(services))
	for _, b := range services {
		names = append(names, b.name)
	}
	name, r, i := names[c.rand.IntN(len(names))], c.rand.IntN(2), c.rand.IntN(len(c.nodes))
	short, long := c.between(0, 5*time.Second), c.between(3*time.Second, 15*time.Second)
	what := c.rand.IntN(20)
	switch {
	case what < 7:
		c.logf("kill %s %d for %.1fs", name, r, short.Seconds())
		_ = c.replicas[name][r].stop(syscall.SIGKILL)
		time.Sleep(short)
		c.start(name, r)
	case what < 11:
		c.logf("freeze %s %d for %.1fs", name, r, long.Seconds())
		p := c.replicas[name][r].cmd.Process
		_ = p.Signal(syscall.SIGSTOP)
		time.Sleep(long)
		_ = p.Signal(syscall.SIGCONT)
	case what < 13:
		c.logf("roll %s", name)
		for r, p := range c.replicas[name] {
			if err := p.stop(syscall.SIGTERM); err != nil {
				c.t.Errorf("%s %d, on SIGTERM: %v", name, r, err)
			}
			c.start(name, r)
			ready(c.t, c.replicas[name][r], c.balancer.replica(name, r))
		}
	case what < 15:
		c.logf("kill broker %d for %.1fs", i, long.Seconds())
		c.nodes[i].Kill(c.t)
		time.Sleep(long)
		c.nodes[i].Start(c.t)
	case what < 17:
		c.logf("freeze broker %d for %.1fs", i, long.Seconds())
		c.nodes[i].Freeze(c.t)
		time.Sleep(long)
		c.nodes[i].Thaw(c.t)
	case what < 19:
		c.logf("no byte passes between services and broker %d for %.1fs", i, long.Seconds())
		c.proxies[i].Pause()
		time.Sleep(long)
		c.proxies[i].Cut()
		c.proxies[i].Resume()
	case !c.failed:
		c.logf("kill PostgreSQL and promote the standby")
		c.failed = true
		c.postgres.Failover(c.t)
	}
	c.logf("undone")
}

// freeOffsets finds offsets at which all ports of the shop are free.
func freeOffsets(t *testing.T, n int) (offsets []int) {
	t.Helper()
	for from := 2000 + os.Getpid()%3000; len(offsets) < n; {
		offset := freeOffsetFrom(t, from)
		offsets, from = append(offsets, offset), offset+97
	}
	return slices.Clip(offsets)
}
