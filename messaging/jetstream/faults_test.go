package jetstream_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/jetstream"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

// flow begins traffic by brokers that reconnect and repeat fast.
func flow(t *testing.T, url string, cfg jetstream.Config) *brokertest.Traffic {
	t.Helper()
	cfg.Reconnect, cfg.AckWait = messaging.Exponential(5*time.Millisecond, 100*time.Millisecond), 2*time.Second
	cfg.Stream = cmp.Or(cfg.Stream, unique())
	return brokertest.StartTraffic(t, false, func() messaging.Broker { return open(t, url, cfg) })
}

// A server that is killed with SIGKILL and started again, under load: all confirmed messages arrive.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	n := single(t)
	tr := flow(t, n.url, jetstream.Config{})
	for i := range 3 {
		n.restart(t)
		tr.Alive(fmt.Sprint("kill ", i))
	}
	tr.Finish()
}

// What is acknowledged while the server is down reaches it afterwards, however long it was down: nothing else takes the
// room.
func TestAcksOfAnOutageAreKept(t *testing.T) {
	t.Parallel()
	n := single(t)
	b := open(t, n.url, jetstream.Config{AckWait: 30 * time.Millisecond})
	s := subscribe(t, b, "g", 500, "t")
	if err := b.PublishBatch(t.Context(), slices.Repeat([]messaging.Envelope{{Type: "t"}}, 500)); err != nil {
		t.Fatal(err)
	}
	var held []messaging.Delivery
	for range 500 {
		held = append(held, receive(t, s))
	}
	n.Kill()
	time.Sleep(500 * time.Millisecond) // 50 times that the deliveries would be extended
	for i, d := range held {
		if err := d.Ack(t.Context()); err != nil {
			t.Fatalf("acknowledgement %d: %v", i, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// What is settled while the connection is lost makes room once: afterwards no more is out than Prefetch.
func TestPrefetchHoldsAfterAReconnection(t *testing.T) {
	t.Parallel()
	n := single(t)
	b := open(t, n.url, jetstream.Config{})
	s := subscribe(t, b, "g", 4, "t")
	if err := b.PublishBatch(t.Context(), slices.Repeat([]messaging.Envelope{{Type: "t"}}, 50)); err != nil {
		t.Fatal(err)
	}
	var held []messaging.Delivery
	for range 4 {
		held = append(held, receive(t, s))
	}
	n.Kill()
	for b.Health(within(t, 100*time.Millisecond)) == nil {
		time.Sleep(time.Millisecond)
	}
	for _, d := range held {
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n.restart(t)
	out := 0
	for ctx := within(t, 3*time.Second); ; out++ {
		if _, err := s.Receive(ctx); err != nil {
			break
		}
	}
	if out != 4 {
		t.Errorf("%d deliveries are out, want 4", out)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A client whose connections are cut, and then stay open and deliver nothing.
func TestClientIsCutOff(t *testing.T) {
	t.Parallel()
	p := faultproxy.New(t, shared.Addr().String())
	tr := flow(t, "nats://"+p.Addr(), jetstream.Config{})
	for range 20 {
		p.Cut()
		time.Sleep(20 * time.Millisecond)
	}
	tr.Alive("cuts")
	p.Pause()
	time.Sleep(200 * time.Millisecond)
	p.Cut()
	p.Resume()
	tr.Alive("a black hole")
	tr.Silence(p.Freeze)
	tr.Finish()
}

// In a cluster of three with three replicas leaders are moved under load, and then the stream's leader is killed and
// started again: all confirmed messages arrive.
func TestClusterLosesNothingWhileLeadersMove(t *testing.T) {
	t.Parallel()
	nodes, url := cluster(t)
	cfg := jetstream.Config{Replicas: 3, Stream: unique()}
	tr := flow(t, url, cfg)
	nc := dial(t, url)
	for _, what := range []string{"STREAM.LEADER.STEPDOWN." + cfg.Stream, "CONSUMER.LEADER.STEPDOWN." + cfg.Stream +
		".g"} {
		if m, err := nc.Request("$JS.API."+what, nil, patience); err != nil || strings.Contains(string(m.Data), `"error"`) {
			t.Errorf("%s: %v", what, err)
		}
	}
	tr.Alive("a move of leaders")
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	n := leader(t, js, nodes, cfg.Stream)
	n.Kill()
	tr.Alive("the death of " + n.name)
	n.restart(t)
	tr.Alive("the return of " + n.name)
	tr.Finish()
}

// leader returns the node that leads a stream.
func leader(t *testing.T, js natsjs.JetStream, nodes []*node, stream string) *node {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			continue
		}
		for _, n := range nodes {
			if c := s.CachedInfo().Cluster; c != nil && c.Leader == n.name {
				return n
			}
		}
	}
	t.Fatal("no leader")
	return nil
}

func TestConformanceOnCluster(t *testing.T) {
	t.Parallel()
	_, url := cluster(t)
	dial(t, url)
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return open(t, url, jetstream.Config{Replicas: 3, AckWait: 2 * time.Second})
	}, messagingtest.Features{})
}
