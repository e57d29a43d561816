package rabbitmq_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// In a cluster of three the node that holds the queue's leader and the connections is killed, then the next one, then
// it is frozen and stays so, and at last the majority is frozen for a while: what was confirmed arrives, and publishing
// and consuming go on by the nodes that are left while one is dead or frozen.
func TestClusterLosesNothingWhileNodesDie(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "a cluster is started: run without -short")
	}
	t.Parallel()
	nodes := testenv.RabbitMQCluster(t, 3)
	firstRetriesComeBack(t, nodes)
	proxies := make([]*faultproxy.Proxy, len(nodes))
	for i, n := range nodes {
		proxies[i] = faultproxy.New(t, n.Host())
		proxies[i].Refuse(i > 0) // leaders are where their queues are declared
	}
	tr := flow(t, fmt.Sprintf("amqp://guest:guest@%s,%s,%s/", proxies[0].Addr(), proxies[1].Addr(), proxies[2].Addr()),
		rabbitmq.Config{Heartbeat: 2 * time.Second}, messaging.ErrNacked, messaging.ErrUnroutable,
		messaging.ErrUnknownOutcome) // of what was sent again and refused
	tr.alive("the start")
	connectTo := func(chosen int) { // and be free to go to the others
		for i, p := range proxies {
			p.Refuse(i != chosen)
			if i != chosen {
				p.Cut()
			}
		}
		tr.until("connections to one node", func() bool { return tr.b.Health(t.Context()) == nil })
		for _, p := range proxies {
			p.Refuse(false)
		}
	}
	connectTo(0)
	pause := func(what string) {
		t.Helper()
		start := time.Now()
		tr.alive(what)
		t.Logf("%s: a pause of %v", what, time.Since(start))
	}
	nodes[0].Kill(t)
	pause("the leader's node was killed, clients on it")
	if err := tr.b.Health(t.Context()); err != nil {
		t.Errorf("Health by the other nodes: %v", err)
	}
	nodes[0].Start(t)
	pause("it is back")
	nodes[1].Kill(t)
	pause("the second node was killed")
	nodes[1].Start(t)
	pause("it is back")

	leader := leaderOf(t, nodes, "g")
	connectTo(leader)
	nodes[leader].Freeze(t)
	pause("the leader's node is frozen, clients on it")
	pause("it stays frozen")
	if err := tr.b.Health(t.Context()); err != nil {
		t.Errorf("Health by the other nodes: %v", err)
	}
	nodes[leader].Kill(t)
	nodes[leader].Start(t)
	pause("it was restarted")

	majority := []*testenv.Node{nodes[leader], nodes[(leader+1)%3]}
	connectTo((leader + 2) % 3)
	for _, n := range majority {
		n.Freeze(t)
	}
	start := time.Now()
	tr.until("Health without a majority", func() bool { return errors.Is(tr.b.Health(t.Context()), messaging.ErrBlocked) })
	t.Logf("Health returned an error %v after the majority was frozen", time.Since(start))
	for _, n := range majority {
		n.Thaw(t)
	}
	pause("the majority is back")
	tr.finish()
}

// firstRetriesComeBack has the first messages of groups fail in several processes at once, which all make the group's
// queue of retries and publish to it.
func firstRetriesComeBack(t *testing.T, nodes []*testenv.Node) {
	t.Helper()
	const groups, each = 10, 5
	brokers := make([]*rabbitmq.Broker, 2*len(nodes))
	for i := range brokers {
		brokers[i] = open(t, nodes[i%len(nodes)].URL(), rabbitmq.Config{})
	}
	for g := range groups {
		group := fmt.Sprint("first", g)
		streams := make([]messaging.Stream, len(brokers))
		for i, b := range brokers {
			streams[i] = subscribe(t, b, group, each, group)
		}
		for i := range each * len(brokers) {
			for err := brokers[0].Publish(within(t, patience), group, i); err != nil; {
				if !errors.Is(err, messaging.ErrNacked) && !errors.Is(err, messaging.ErrUnroutable) { // the queue is new
					t.Fatal(err)
				}
				err = brokers[0].Publish(within(t, patience), group, i)
			}
		}
		var first []messaging.Delivery
		for _, s := range streams {
			for range each {
				first = append(first, receive(t, s))
			}
		}
		var retries sync.WaitGroup
		for _, d := range first { // all at once
			retries.Go(func() {
				err := d.Retry(t.Context(), 50*time.Millisecond, nil)
				if err != nil && !errors.Is(err, messaging.ErrNacked) { // and so is this one: the message comes again
					t.Error(err)
				}
			})
		}
		retries.Wait()
		for _, s := range streams[1:] {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		for back := map[string]bool{}; len(back) < len(first); {
			d, err := streams[0].Receive(within(t, 20*time.Second))
			if err != nil {
				t.Fatalf("%d of %d messages came back: %v", len(back), len(first), err)
			}
			back[d.Envelope().ID] = true
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := streams[0].Close(); err != nil {
			t.Error(err)
		}
	}
}

// leaderOf returns the index of the node that has the leader of a queue.
func leaderOf(t *testing.T, nodes []*testenv.Node, queue string) int {
	t.Helper()
	list := nodes[0].Control(t, "-q", "list_queues", "--no-table-headers", "name", "leader")
	for i, n := range nodes {
		if strings.Contains("\n"+list, "\n"+queue+"\t"+n.Name()) {
			return i
		}
	}
	t.Fatalf("no leader of %s in %q", queue, list)
	return 0
}
