package rabbitmq_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// In a cluster of three the node that holds the queue's leader and the connections is killed, then the next
// one, and the last is frozen for a while: what was confirmed arrives, and publishing and consuming go on by the nodes that
// are left while one is dead.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster is started: run without -short")
	}
	nodes := testenv.RabbitMQCluster(t, 3)
	proxies := make([]*faultproxy.Proxy, len(nodes))
	for i, n := range nodes {
		proxies[i] = faultproxy.New(t, n.Host())
		proxies[i].Refuse(i > 0) // leaders are where their queues are declared
	}
	tr := flow(t, fmt.Sprintf("amqp://guest:guest@%s,%s,%s/", proxies[0].Addr(), proxies[1].Addr(), proxies[2].Addr()),
		rabbitmq.Config{Heartbeat: 2 * time.Second}, messaging.ErrNacked, messaging.ErrUnroutable)
	tr.alive("the start")
	for _, p := range proxies[1:] {
		p.Refuse(false)
	}
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
	nodes[2].Freeze(t)
	time.Sleep(8 * time.Second)
	nodes[2].Thaw(t)
	pause("the third was frozen for 8 s")
	tr.finish()
}
