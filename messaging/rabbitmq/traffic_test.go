package rabbitmq_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// patience bounds what tests wait for: a cluster that has lost its majority takes most of a minute to recover.
const patience = 90 * time.Second

// traffic publishes and handles messages while faults happen, and knows at the end what was promised and not kept.
// Beside the good messages go some that no queue takes.
type traffic struct {
	*testing.T
	b     *rabbitmq.Broker
	allow []error // what Publish may return beside nil

	mu        sync.Mutex
	confirmed []string
	handled   map[string]int
	refused   int
	before    int // goroutines after the first fault

	gate       sync.RWMutex // publishers hold it open
	halt, stop func()
	publishers sync.WaitGroup
	done       chan error
}

// flow starts traffic over the broker that cfg makes.
func flow(t *testing.T, url string, cfg rabbitmq.Config, allow ...error) *traffic {
	t.Helper()
	tr := &traffic{T: t, allow: allow, handled: map[string]int{}, done: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	t.Cleanup(cancel)
	cfg.PublishTimeout, cfg.Reconnect = -1, messaging.Exponential(2*time.Millisecond, 25*time.Millisecond)
	// What the broker starts has the label of who made it: goroutines of other tests are not counted.
	pprof.Do(ctx, pprof.Labels("traffic", t.Name()), func(ctx context.Context) {
		tr.b = open(t, url, cfg)
		if err := subscribe(t, tr.b, "g", 1, "t").Close(); err != nil {
			t.Fatal(err)
		}
		running, stop := context.WithCancel(ctx)
		tr.stop = stop
		r := messaging.Must(messaging.NewRouter(tr.b, messaging.RouterConfig{Logger: quiet}))
		messaging.HandleRaw(r.Group("g", messaging.GroupConfig{Concurrency: 8}), "t",
			func(_ context.Context, m messaging.Message[[]byte]) error {
				tr.mu.Lock()
				defer tr.mu.Unlock()
				tr.handled[m.ID]++
				return nil
			})
		go func() { tr.done <- r.Run(running) }()
		publishing, halt := context.WithCancel(ctx)
		tr.halt = halt
		for w := range 6 {
			tr.publishers.Go(func() {
				for i := 0; publishing.Err() == nil; i++ {
					tr.gate.RLock()
					tr.publish(ctx, fmt.Sprint(w, "-", i))
					tr.gate.RUnlock()
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		for w := range 2 {
			tr.publishers.Go(func() {
				for i := 0; publishing.Err() == nil; i++ {
					err := tr.b.Publish(ctx, "nobody.listens", i, messaging.WithID(fmt.Sprint("no", w, "-", i)))
					if !errors.Is(err, messaging.ErrUnroutable) {
						t.Errorf("publishing what no queue takes: %v", err)
						return
					}
					tr.mu.Lock()
					tr.refused++
					tr.mu.Unlock()
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
	})
	return tr
}

func (tr *traffic) publish(ctx context.Context, id string) {
	err := tr.b.Publish(ctx, "t", 1, messaging.WithID(id))
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if err == nil {
		tr.confirmed = append(tr.confirmed, id)
		return
	}
	for _, a := range tr.allow {
		if errors.Is(err, a) {
			return
		}
	}
	tr.Errorf("publish %s: %v", id, err)
}

func (tr *traffic) until(what string, ok func() bool) {
	tr.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(end) {
			tr.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// alive checks that messages published from now on are handled, and counts goroutines.
func (tr *traffic) alive(what string) {
	tr.Helper()
	tr.mu.Lock()
	from := len(tr.confirmed)
	tr.mu.Unlock()
	tr.until("messages after "+what, func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		n := 0
		for _, id := range tr.confirmed[from:] {
			if tr.handled[id] > 0 {
				n++
			}
		}
		return n >= 10
	})
	n := tr.goroutines()
	if tr.before == 0 {
		tr.before = n
	}
	// Connections that end take a moment.
	for end := time.Now().Add(30 * time.Second); n > tr.before+4 && time.Now().Before(end); n = tr.goroutines() {
		time.Sleep(10 * time.Millisecond)
	}
	if n > tr.before+4 {
		tr.Fatalf("after %s there are %d goroutines, after the first fault there were %d", what, n, tr.before)
	}
}

// goroutines counts those of this traffic.
func (tr *traffic) goroutines() (n int) {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		tr.Fatal(err)
	}
	count := 0
	for s := bufio.NewScanner(&profile); s.Scan(); {
		if head, _, ok := strings.Cut(s.Text(), " @ "); ok {
			if _, err := fmt.Sscan(head, &count); err != nil {
				tr.Fatal(err)
			}
		} else if strings.Contains(s.Text(), `"traffic":"`+tr.Name()+`"`) {
			n += count
		}
	}
	return n
}

// missing counts the confirmed messages that were not handled.
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

func (tr *traffic) handledAll() {
	for end := time.Now().Add(patience); tr.missing() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// still runs f while nothing is published and all is handled.
func (tr *traffic) still(f func()) {
	tr.gate.Lock()
	defer tr.gate.Unlock()
	tr.handledAll()
	f()
}

// finish stops the traffic and holds it to what was promised.
func (tr *traffic) finish() {
	tr.Helper()
	tr.halt()
	tr.publishers.Wait()
	tr.handledAll()
	tr.stop()
	if err := <-tr.done; err != nil {
		tr.Errorf("Run: %v", err)
	}
	if n := tr.missing(); n > 0 || len(tr.confirmed) < 100 || tr.refused < 10 {
		tr.Errorf("%d of %d confirmed messages were not handled; %d that no queue takes were refused", n, len(tr.confirmed),
			tr.refused)
	}
	tr.until("the dead letters", func() bool { // a queue whose majority has just come back may not answer yet
		dead, err := tr.b.DeadLetters(within(tr.T, 10*time.Second), "g", 1)
		if len(dead) != 0 {
			tr.Errorf("dead letters: %v", dead)
		}
		return err == nil
	})
	twice := 0
	for _, n := range tr.handled {
		twice += n - 1
	}
	tr.Logf("%d messages, %d came again, %d refused, goroutines %d then %d", len(tr.confirmed), twice, tr.refused,
		tr.before, tr.goroutines())
}
