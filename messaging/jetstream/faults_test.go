package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

// traffic publishes and handles messages while faults happen, and knows at the end what was promised and not kept. One
// message in ten fails once.
type traffic struct {
	*testing.T
	b *jetstream.Broker

	mu        sync.Mutex
	confirmed []string
	handled   map[string]int
	silent    atomic.Bool // for longer than Publish waits: outcomes may be unknown

	halt, stop func()
	publishers sync.WaitGroup
	done       chan error
}

func flow(t *testing.T, url string, cfg jetstream.Config) *traffic {
	t.Helper()
	cfg.Reconnect, cfg.AckWait = messaging.Exponential(5*time.Millisecond, 100*time.Millisecond), 2*time.Second
	tr := &traffic{T: t, handled: map[string]int{}, done: make(chan error, 1), b: open(t, url, cfg)}
	if err := subscribe(t, tr.b, "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	tr.begin()
	tr.alive("the start")
	return tr
}

// begin consumes and publishes until the traffic ends.
func (tr *traffic) begin() {
	tr.Helper()
	running, stop := context.WithCancel(tr.Context())
	publishing, halt := context.WithCancel(tr.Context())
	tr.stop, tr.halt = stop, halt
	r := messaging.Must(messaging.NewRouter(tr.b, messaging.RouterConfig{Logger: quiet}))
	g := r.Group("g", messaging.GroupConfig{Concurrency: 8, Retry: messaging.Retry{Attempts: -1,
		Backoff: messaging.Constant(20 * time.Millisecond)}})
	messaging.HandleRaw(g, "t", func(_ context.Context, m messaging.Message[[]byte]) error {
		if m.Attempt == 1 && strings.HasSuffix(m.ID, "7") {
			return fmt.Errorf("once more")
		}
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.handled[m.ID]++
		return nil
	})
	go func() { tr.done <- r.Run(running) }()
	for w := range 6 {
		tr.publishers.Go(func() {
			for i := 0; publishing.Err() == nil; i++ {
				id := fmt.Sprint(w, "-", i)
				if err := tr.b.Publish(tr.Context(), "t", 1, messaging.WithID(id)); tr.silent.Load() && errors.Is(err,
					messaging.ErrUnknownOutcome) {
					continue
				} else if err != nil {
					tr.Errorf("publish %s: %v", id, err)
				} else {
					tr.mu.Lock()
					tr.confirmed = append(tr.confirmed, id)
					tr.mu.Unlock()
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// alive checks that messages published from now on are handled.
func (tr *traffic) alive(what string) {
	tr.Helper()
	tr.aliveWithin(what, patience)
}

func (tr *traffic) aliveWithin(what string, bound time.Duration) {
	tr.Helper()
	tr.mu.Lock()
	from, begin := len(tr.confirmed), time.Now()
	tr.mu.Unlock()
	for end := time.Now().Add(bound); ; time.Sleep(3 * time.Millisecond) {
		tr.mu.Lock()
		n := 0
		for _, id := range tr.confirmed[from:] {
			n += min(tr.handled[id], 1)
		}
		tr.mu.Unlock()
		if n >= 20 {
			tr.Logf("%v after %s: handled again", time.Since(begin).Round(time.Millisecond), what)
			return
		}
		if time.Now().After(end) {
			tr.Fatalf("after %s nothing is handled", what)
		}
	}
}

func (tr *traffic) missing() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, id := range tr.confirmed {
		if tr.handled[id] == 0 {
			n++
		}
	}
	return n
}

// finish stops the traffic and holds it to what was promised.
func (tr *traffic) finish() {
	tr.Helper()
	tr.halt()
	tr.publishers.Wait()
	for end := time.Now().Add(patience); tr.missing() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	tr.stop()
	if err := <-tr.done; err != nil {
		tr.Errorf("Run: %v", err)
	}
	if n := tr.missing(); n > 0 || len(tr.confirmed) < 40 {
		tr.Errorf("%d of %d confirmed messages were not handled", n, len(tr.confirmed))
	}
	ctx, cancel := context.WithTimeout(tr.Context(), patience)
	defer cancel()
	if dead, err := tr.b.DeadLetters(ctx, "g", 1); err != nil || len(dead) != 0 {
		tr.Errorf("dead letters: %v, %v", dead, err)
	}
	twice := 0
	for _, n := range tr.handled {
		twice += n - 1
	}
	tr.Logf("%d messages confirmed and handled, %d of them more than once", len(tr.confirmed), twice)
}

// A server that is killed with SIGKILL and started again, under load: all confirmed messages arrive.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	n := single(t)
	tr := flow(t, n.url, jetstream.Config{})
	for i := range 3 {
		n.restart(t)
		tr.alive(fmt.Sprint("kill ", i))
	}
	tr.finish()
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
	tr.alive("cuts")
	p.Pause()
	time.Sleep(200 * time.Millisecond)
	p.Cut()
	p.Resume()
	tr.alive("a black hole")
	tr.silent.Store(true)
	p.Freeze()
	tr.aliveWithin("connections that went silent for good", 90*time.Second) // pings and timeouts notice it
	tr.finish()
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
	tr.alive("a move of leaders")
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	n := leader(t, js, nodes, cfg.Stream)
	n.Kill()
	tr.alive("the death of " + n.name)
	n.restart(t)
	tr.alive("the return of " + n.name)
	tr.finish()
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
