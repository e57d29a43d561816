package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// sequence publishes numbers of keys, one after the other, and checks the order in which they are handled.
type sequence struct {
	*testing.T
	b *rabbitmq.Broker

	mu        sync.Mutex
	confirmed map[string]int // the last number
	handled   map[string]int
	came      int // deliveries
	faults    []string
	at        map[string]time.Time // when the key's last number was handled
	gap       time.Duration        // the longest between two of a key, since it was logged
}

func (s *sequence) handle(_ context.Context, m messaging.Message[int]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.came++
	switch last := s.handled[m.Key]; {
	case m.Data == last+1:
		s.handled[m.Key] = m.Data
		if at := s.at[m.Key]; !at.IsZero() {
			s.gap = max(s.gap, time.Since(at))
		}
		s.at[m.Key] = time.Now()
	case m.Data > last:
		s.faults = append(s.faults, fmt.Sprintf("key %s: %d came after %d", m.Key, m.Data, last))
	}
	return nil
}

func (s *sequence) publish(ctx context.Context, key string) {
	for n := 1; ctx.Err() == nil; n++ {
		for {
			err := s.b.Publish(context.WithoutCancel(ctx), "seq", n, messaging.WithKey(key))
			if err == nil {
				break
			}
			if !errors.Is(err, messaging.ErrNacked) && !errors.Is(err, messaging.ErrUnroutable) &&
				!errors.Is(err, messaging.ErrUnknownOutcome) && !errors.Is(err, messaging.ErrBlocked) {
				s.Errorf("publish: %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.mu.Lock()
		s.confirmed[key] = n
		s.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

// await waits until what is published from now on is handled, for every key.
func (s *sequence) await(what string) {
	s.Helper()
	begin := time.Now()
	s.mu.Lock()
	target := map[string]int{}
	for k, n := range s.confirmed {
		target[k] = n + 3
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		behind := 0
		for k, n := range target {
			if s.handled[k] < n {
				behind++
			}
		}
		s.mu.Unlock()
		if behind == 0 {
			s.mu.Lock()
			s.Logf("%s: a pause of %v", what, s.gap)
			s.gap = 0
			s.mu.Unlock()
			return
		}
		if time.Since(begin) > patience {
			s.Fatalf("%s: %d keys do not go on after %v", what, behind, patience)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// In a cluster of three the node with the leaders and the clients is cut off from the others, is healed, and the next
// one is cut off, while two processes share the partitions of a group: what was confirmed arrives, and each key's
// messages in order.
func TestClusterIsCutInTwo(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "a cluster is started: run without -short")
	}
	t.Parallel()
	nodes := testenv.RabbitMQCluster(t, 3)
	hosts := make([]string, len(nodes))
	for i, n := range nodes {
		hosts[i] = n.Host()
	}
	cfg := rabbitmq.Config{
		Heartbeat: 2 * time.Second,
		Reconnect: messaging.Exponential(2*time.Millisecond, 25*time.Millisecond),
	}
	url := "amqp://guest:guest@" + hosts[0] // leaders are where their queues are declared
	others := "amqp://guest:guest@" + strings.Join(hosts, ",") + "/"
	first := open(t, url+"/", cfg)
	made, err := first.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"seq"}, Prefetch: 1,
		Partitions: 6})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(made.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}

	s := &sequence{T: t, b: open(t, others, cfg), confirmed: map[string]int{}, handled: map[string]int{},
		at: map[string]time.Time{}}
	ended := make(chan error, 2)
	running, stop := context.WithCancel(t.Context())
	for range 2 {
		r := messaging.Must(messaging.NewRouter(open(t, others, cfg), messaging.RouterConfig{Logger: quiet}))
		messaging.Handle(r.Group("g", messaging.GroupConfig{Concurrency: 4, Partitions: 6}), "seq", s.handle)
		go func() { ended <- r.Run(running) }()
		<-r.Running()
	}
	publishing, halt := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for k := range 12 {
		key := fmt.Sprint("k", k)
		s.mu.Lock()
		s.confirmed[key] = 0
		s.mu.Unlock()
		publishers.Go(func() { s.publish(publishing, key) })
	}
	s.await("the start")
	connected := func(n int) { // with the node that is never cut off
		t.Helper()
		for begin := time.Now(); strings.TrimSpace(nodes[2].Control(t, "eval", "length(nodes()).")) != fmt.Sprint(n); {
			if time.Since(begin) > patience {
				t.Fatalf("the last node is not connected with %d others after %v", n, patience)
			}
		}
	}
	for _, which := range []int{0, 1} {
		testenv.CutOff(t, nodes, which)
		s.await(fmt.Sprintf("node %d was cut off", which))
		connected(1)
		s.await("it stays so")
		testenv.Heal(t, nodes, which)
		connected(2)
		s.await("it was healed")
	}
	halt()
	publishers.Wait()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		left := 0
		for k, n := range s.confirmed {
			left += n - s.handled[k]
		}
		s.mu.Unlock()
		if left == 0 {
			break
		}
	}
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	total := 0
	for k, n := range s.confirmed {
		total += n
		if s.handled[k] != n {
			t.Errorf("key %s: %d of %d confirmed messages were handled", k, s.handled[k], n)
		}
	}
	if len(s.faults) > 0 {
		t.Errorf("%d times out of order, first: %s", len(s.faults), s.faults[0])
	}
	t.Logf("%d messages of 12 keys, %d came again", total, s.came-total)
}
