package kafka_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

// traffic publishes and handles messages while faults happen, and knows at the end what was promised and not kept. One
// message in ten fails once.
type traffic struct {
	*testing.T
	b   *kafka.Broker
	url string
	cfg kafka.Config

	mu        sync.Mutex
	confirmed []string
	handled   map[string]int
	order     map[string][]string // ids of first attempts by key, in the order in which they were handled

	halt       func()
	publishers sync.WaitGroup
	consumers  []*consumer
}

// consumer is a process of the group.
type consumer struct {
	b    *kafka.Broker
	stop func()
	done chan error
}

const publishersOfTraffic = 6

func flow(t *testing.T, url string, cfg kafka.Config) *traffic {
	t.Helper()
	cfg.Reconnect = messaging.Exponential(5*time.Millisecond, 100*time.Millisecond)
	cfg.Prefix = unique()
	tr := &traffic{T: t, handled: map[string]int{}, order: map[string][]string{}, b: open(t, url, cfg), url: url, cfg: cfg}
	if err := subscribe(t, tr.b, "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	publishing, halt := context.WithCancel(t.Context())
	tr.halt = halt
	tr.join()
	for w := range publishersOfTraffic {
		tr.publishers.Go(func() {
			for i := 0; publishing.Err() == nil; i++ {
				id := fmt.Sprintf("%d-%06d", w, i)
				if err := tr.b.Publish(t.Context(), "t", 1, messaging.WithID(id), messaging.WithKey(fmt.Sprint(w))); err != nil {
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
	tr.alive("the start")
	return tr
}

// join adds a consumer with connections of its own.
func (tr *traffic) join() {
	tr.Helper()
	c := &consumer{b: open(tr.T, tr.url, tr.cfg), done: make(chan error, 1)}
	ctx, stop := context.WithCancel(tr.Context())
	c.stop = stop
	r := messaging.Must(messaging.NewRouter(c.b, messaging.RouterConfig{Logger: quiet}))
	g := r.Group("g", messaging.GroupConfig{Concurrency: 8, Ordered: true, Retry: messaging.Retry{Attempts: -1,
		Backoff: messaging.Constant(20 * time.Millisecond)}})
	messaging.HandleRaw(g, "t", func(_ context.Context, m messaging.Message[[]byte]) error {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if m.Attempt == 1 {
			tr.order[m.Key] = append(tr.order[m.Key], m.ID)
			if strings.HasSuffix(m.ID, "7") {
				return fmt.Errorf("once more")
			}
		}
		tr.handled[m.ID]++
		return nil
	})
	go func() { c.done <- r.Run(ctx) }()
	tr.consumers = append(tr.consumers, c)
}

// part ends the oldest consumer.
func (tr *traffic) part() {
	tr.Helper()
	c := tr.consumers[0]
	tr.consumers = tr.consumers[1:]
	c.stop()
	if err := <-c.done; err != nil {
		tr.Errorf("Run: %v", err)
	}
	if err := c.b.Close(); err != nil {
		tr.Errorf("Close: %v", err)
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

// finish stops the traffic and holds it to what was promised: all confirmed messages are handled, and first attempts of
// a key come in order, save for those that came twice. It returns how many were handled more than once.
func (tr *traffic) finish() (twice int) {
	tr.Helper()
	tr.halt()
	tr.publishers.Wait()
	for end := time.Now().Add(patience); tr.missing() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if n := tr.missing(); n > 0 || len(tr.confirmed) < 40 {
		tr.Errorf("%d of %d confirmed messages were not handled", n, len(tr.confirmed))
	}
	for len(tr.consumers) > 0 {
		tr.part()
	}
	ctx, cancel := context.WithTimeout(tr.Context(), patience)
	defer cancel()
	if dead, err := tr.b.DeadLetters(ctx, "g", 1); err != nil || len(dead) != 0 {
		tr.Errorf("dead letters: %v, %v", dead, err)
	}
	for _, n := range tr.handled {
		twice += n - 1
	}
	for key, ids := range tr.order {
		seen := map[string]bool{}
		var first []string
		for _, id := range ids {
			if !seen[id] {
				seen[id] = true
				first = append(first, id)
			}
		}
		if !slices.IsSorted(first) {
			tr.Errorf("key %s: first attempts out of order", key)
		}
	}
	tr.Logf("%d messages confirmed and handled, %d of them more than once", len(tr.confirmed), twice)
	return twice
}

// cluster starts brokers of the test's own.
func cluster(t *testing.T, n int) (c *kfake.Cluster, url string) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, urlOf(c)
}

// In a cluster of three, leaders of partitions and coordinators move under load, and a broker is taken away: all
// confirmed messages arrive.
func TestClusterLosesNothingWhileLeadersMove(t *testing.T) {
	t.Parallel()
	c, url := cluster(t, 3)
	tr := flow(t, url, kafka.Config{})
	for range 5 {
		c.ShufflePartitionLeaders()
		time.Sleep(50 * time.Millisecond)
	}
	tr.alive("a move of leaders")
	c.RehashCoordinators()
	tr.alive("a move of coordinators")
	if err := c.RemoveNode(2); err != nil {
		t.Fatal(err)
	}
	tr.alive("the loss of a broker")
	if _, _, err := c.AddNode(2, 0); err != nil {
		t.Fatal(err)
	}
	c.ShufflePartitionLeaders()
	tr.alive("the return of a broker")
	tr.finish()
}

func TestConformanceOnCluster(t *testing.T) {
	t.Parallel()
	_, url := cluster(t, 3)
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return open(t, url, kafka.Config{Replicas: 3})
	}, messagingtest.Features{})
}

// A client whose connections are cut, and then stay open and deliver nothing.
func TestClientIsCutOff(t *testing.T) {
	t.Parallel()
	url, p := proxied(t)
	tr := flow(t, url, kafka.Config{})
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
	p.Freeze()
	tr.aliveWithin("connections that went silent for good", 90*time.Second) // pings and timeouts notice it
	tr.finish()
}

var storm = flag.Duration("storm", 2*time.Second, "for how long TestRebalanceStorm lets consumers join and leave")

// Consumers join and leave under load: no message is lost, none that was settled is handled again, and those of a key
// come in order.
func TestRebalanceStorm(t *testing.T) {
	t.Parallel()
	_, url := cluster(t, 1)
	tr := flow(t, url, kafka.Config{})
	moves := 0
	for end := time.Now().Add(*storm); time.Now().Before(end); moves++ {
		tr.join()
		time.Sleep(min(*storm/10, time.Second))
		if len(tr.consumers) > 3 {
			tr.part()
		}
	}
	tr.alive(fmt.Sprint(moves, " rebalances"))
	if twice := tr.finish(); twice > 0 {
		t.Errorf("%d messages were handled again although they were settled", twice)
	}
}

// proxied starts a cluster that is reached through a proxy.
func proxied(t *testing.T) (url string, p *faultproxy.Proxy) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second),
		kfake.ListenFn(func(network, addr string) (net.Listener, error) {
			ln, err := net.Listen(network, addr)
			if err == nil {
				p = faultproxy.New(t, ln.Addr().String())
				ln = advertised{ln, p.Addr()}
			}
			return ln, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return urlOf(c), p
}

// advertised is a listener whose clients are given another address.
type advertised struct {
	net.Listener
	addr string
}

func (a advertised) Addr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", a.addr)
	if err != nil {
		panic(err)
	}
	return addr
}
