//go:build chaos

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	failed   bool      // over
	silent   time.Time // since then the old primary has been
	balancer *balancer
	args     map[string][2][]string
	replicas map[string]*[2]*process

	program   string              // of the next version
	next      map[string]*[2]bool // which replicas are of it
	catalogue catalogue
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
	ctx, cancel := context.WithTimeout(t.Context(), *chaosFor+20*time.Minute)
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
	clients.Go(func() { c.catalogue.rename(load, admin, gateway) })
	for end := c.begin.Add(*chaosFor); time.Now().Before(end); {
		c.disturb()
		time.Sleep(c.between(time.Second, 4*time.Second))
	}
	enough()
	c.logf("all is left alone")
	clients.Wait()
	c.logf("%d orders were placed", len(ids))
	c.finishVersions(ctx, admin, gateway)
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
	c.awaitNotified(ctx, token, gateway, ids)
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
	c.oneTraceEach(ids)
	if t.Failed() {
		t.Logf("again with: make chaos SEED=%d SEEDS=1 FOR=%s", *chaosSeed, *chaosFor)
	}
}

// awaitNotified waits until every order has notified its customer. After patience the test has failed, and is told
// where the messages are, and whether they come late or never.
func (c *chaos) awaitNotified(ctx context.Context, token, gateway string, ids map[string]int) {
	c.t.Helper()
	const patience = 3 * time.Minute
	begin, late := time.Now(), false
	for ; ; time.Sleep(time.Second) {
		missing, waited := unnotified(notified(c.t, ctx, token, gateway), ids), time.Since(begin).Round(time.Second)
		switch {
		case len(missing) == 0:
			c.logf("all customers were notified within %v", waited)
			return
		case !late && waited > patience:
			late = true
			c.t.Errorf("%d notifications are missing after %v, such as %v; the queues are\n%s", len(missing), waited,
				missing[:min(len(missing), 5)], c.queues())
		case waited > 4*patience:
			c.t.Fatalf("%d notifications are missing after %v; the queues are\n%s", len(missing), waited, c.queues())
		}
	}
}

// queues lists the queues, what they hold and who leads them.
func (c *chaos) queues() string {
	c.t.Helper()
	return c.nodes[0].Control(c.t, "-q", "list_queues", "name", "messages_ready", "messages_unacknowledged", "consumers",
		"leader", "members", "online")
}

// oneTraceEach reads in the logs whether all notifications of an order were written in one trace, whichever replica
// handled the order. Spans would not tell: a process that is killed takes its last ones with it.
func (c *chaos) oneTraceEach(ids map[string]int) {
	c.t.Helper()
	traces := map[string]map[string]bool{}
	for _, args := range c.args["notifications"] {
		log, err := os.ReadFile(logOf(args))
		if err != nil {
			c.t.Fatal(err)
		}
		for line := range bytes.Lines(log) {
			var r struct {
				Message string `json:"message"`
				Trace   string `json:"trace_id"`
				Order   string `json:"order_id"`
			}
			if err := json.Unmarshal(line, &r); err == nil && r.Message == "notification written" && r.Order != "" {
				if traces[r.Order] == nil {
					traces[r.Order] = map[string]bool{}
				}
				traces[r.Order][r.Trace] = true
			}
		}
	}
	for id := range ids {
		if len(traces[id]) != 1 || traces[id][""] {
			c.t.Errorf("the notifications of order %s are of the traces %v, want one", id, slices.Collect(maps.Keys(traces[id])))
		}
	}
}

func startChaos(t *testing.T) *chaos {
	t.Helper()
	redis, _ := testenv.Redis(t)
	collect(t) // so that there are traces
	c := &chaos{t: t, rand: rand.New(rand.NewPCG(*chaosSeed, 0)), nodes: testenv.RabbitMQCluster(t, 3),
		postgres: testenv.PostgresCluster(t), args: map[string][2][]string{}, replicas: map[string]*[2]*process{},
		next: map[string]*[2]bool{}, program: buildNext(t)}
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
		if !t.Failed() {
			_ = os.RemoveAll(dir)
			return
		}
		for i, n := range c.nodes {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("broker", i, ".log")), n.Log(t), 0o600); err != nil {
				t.Error(err)
			}
		}
		t.Logf("the logs of services and brokers are kept in %s", dir)
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
		c.next[b.name] = new([2]bool)
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
	program := os.Args[0]
	if c.next[name][r] {
		program = c.program
	}
	c.replicas[name][r] = startProgram(c.t, program, filepath.Dir(logOf(c.args[name][r])), c.args[name][r]...)
}

// logOf finds the file of the log in the arguments of a replica.
func logOf(args []string) string { return args[slices.Index(args, "--log")+1] }

func (c *chaos) between(low, high time.Duration) time.Duration {
	return low + time.Duration(c.rand.Int64N(int64(high-low)))
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
