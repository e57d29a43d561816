package rabbitmq_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// ordered checks the order in which the messages of keys are handled.
type ordered struct {
	mu      sync.Mutex
	faults  []string
	next    map[string]int
	running map[string]bool
	handled int
}

func (o *ordered) begin(key string, n int) (handled int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.running[key] {
		o.faults = append(o.faults, "two at once for key "+key)
	}
	if n != o.next[key] {
		o.faults = append(o.faults, fmt.Sprintf("key %s: %d came, want %d", key, n, o.next[key]))
	}
	o.next[key]++
	o.running[key] = true
	o.handled++
	return o.handled
}

func (o *ordered) check(t *testing.T, enough bool) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !enough {
		t.Error("too few processes took part")
	}
	if len(o.faults) > 0 {
		t.Errorf("%d faults, the first: %s", len(o.faults), o.faults[0])
	}
}

func (o *ordered) end(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running[key] = false
}

// The messages of a key are handled one at a time and in order by a group of several processes, which are shut down one
// after the other with messages on their way.
func TestKeysStayInOrderAcrossProcesses(t *testing.T) {
	t.Parallel()
	t.Run("SingleActive", func(t *testing.T) {
		t.Parallel()
		keysInOrder(t, messaging.GroupConfig{Ordered: true, SingleActive: true})
	})
	t.Run("Partitions", func(t *testing.T) {
		t.Parallel()
		keysInOrder(t, messaging.GroupConfig{Partitions: 5})
	})
}

func keysInOrder(t *testing.T, cfg messaging.GroupConfig) {
	const keys, perKey, eachHandles = 8, 40, 50
	cfg.Concurrency, cfg.Prefetch = 4, 30
	url := testenv.RabbitMQ(t)
	o := &ordered{next: map[string]int{}, running: map[string]bool{}}
	ended := make(chan error, 100) // more than there are processes
	all := make(chan struct{})
	start := func() {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		r := messaging.Must(messaging.NewRouter(open(t, url, rabbitmq.Config{}), messaging.RouterConfig{Logger: quiet}))
		g := r.Group("g", cfg)
		var mu sync.Mutex
		left := eachHandles
		messaging.Handle(g, "t", func(_ context.Context, m messaging.Message[int]) error {
			defer o.end(m.Key)
			if o.begin(m.Key, m.Data) == keys*perKey {
				close(all)
			}
			time.Sleep(2 * time.Millisecond) // in which others have time to overtake
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				stop()
			}
			return nil
		})
		t.Cleanup(stop)
		go func() { ended <- r.Run(ctx) }()
		<-r.Running()
	}
	b := open(t, url, rabbitmq.Config{})
	start()
	start()
	for n := range perKey {
		for k := range keys {
			if err := b.Publish(t.Context(), "t", n, messaging.WithKey(fmt.Sprint("k", k))); err != nil {
				t.Fatal(err)
			}
		}
	}
	processes := 2
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("Run: %v", err)
			}
			processes++
			start()
		case <-all:
			o.check(t, processes >= keys*perKey/eachHandles)
			return
		case <-time.After(patience):
			t.Fatalf("%d messages were handled in %v", o.handled, patience)
		}
	}
}
