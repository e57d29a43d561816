package brokertest

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

	"github.com/sillar-go/sillar/messaging"
)

const (
	// patience bounds each wait for progress.
	patience = 30 * time.Second
	// publishers is how many goroutines of a Traffic publish, each with a key of its own.
	publishers = 6
)

// Traffic publishes and handles messages while faults happen, and knows at the end what was promised and not kept. One
// message in ten fails once.
type Traffic struct {
	*testing.T
	open    func() messaging.Broker
	broker  messaging.Broker // that publishes
	ordered bool
	unknown atomic.Bool // outcomes may be

	mu        sync.Mutex
	confirmed []string
	handled   map[string]int
	order     map[string][]string // ids of first attempts by key, in the order in which they were handled

	halt       func()
	publishing sync.WaitGroup
	processes  []process
}

// process is one of the group that consumes.
type process struct {
	broker messaging.Broker
	stop   func()
	done   chan error
}

// StartTraffic publishes through one of the brokers that open makes and consumes through another one, and waits until
// messages are handled. They share topics and groups, and are closed with the test. With ordered the messages of a key
// have to come in order.
func StartTraffic(t *testing.T, ordered bool, open func() messaging.Broker) *Traffic {
	t.Helper()
	tr := &Traffic{T: t, open: open, broker: open(), ordered: ordered, handled: map[string]int{},
		order: map[string][]string{}}
	s, err := tr.broker.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, halt := context.WithCancel(t.Context())
	tr.halt = halt
	tr.Join()
	for p := range publishers {
		tr.publishing.Go(func() { tr.publish(ctx, p) })
	}
	tr.Alive("the start")
	return tr
}

// publish publishes until ctx ends.
func (tr *Traffic) publish(ctx context.Context, publisher int) {
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%d-%06d", publisher, i)
		err := tr.broker.Publish(tr.Context(), "t", 1, messaging.WithID(id), messaging.WithKey(fmt.Sprint(publisher)))
		switch {
		case tr.unknown.Load() && errors.Is(err, messaging.ErrUnknownOutcome):
		case err != nil:
			tr.Errorf("publish %s: %v", id, err)
		default:
			tr.mu.Lock()
			tr.confirmed = append(tr.confirmed, id)
			tr.mu.Unlock()
		}
		time.Sleep(time.Millisecond) // the rate, not a wait
	}
}

// Join adds a process with connections of its own to the group.
func (tr *Traffic) Join() {
	tr.Helper()
	p := process{broker: tr.open(), done: make(chan error, 1)}
	ctx, stop := context.WithCancel(tr.Context())
	p.stop = stop
	r := messaging.Must(messaging.NewRouter(p.broker, messaging.RouterConfig{Logger: quiet}))
	g := r.Group("g", messaging.GroupConfig{Concurrency: 8, Ordered: tr.ordered, Retry: messaging.Retry{Attempts: -1,
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
	go func() { p.done <- r.Run(ctx) }()
	tr.processes = append(tr.processes, p)
}

// Processes returns how many processes consume.
func (tr *Traffic) Processes() int { return len(tr.processes) }

// Part ends the process that has consumed for the longest time.
func (tr *Traffic) Part() {
	tr.Helper()
	p := tr.processes[0]
	tr.processes = tr.processes[1:]
	p.stop()
	if err := <-p.done; err != nil {
		tr.Errorf("Run: %v", err)
	}
	if err := p.broker.Close(); err != nil {
		tr.Errorf("Close: %v", err)
	}
}

// Alive waits until messages that are published from now on are handled, which is what happens after what.
func (tr *Traffic) Alive(what string) {
	tr.Helper()
	tr.aliveWithin(patience, what)
}

// Silence makes connections silent for good by freeze. That is noticed by pings and timeouts, until when Publish may
// return that it does not know; then messages are handled by new connections.
func (tr *Traffic) Silence(freeze func()) {
	tr.Helper()
	tr.unknown.Store(true)
	freeze()
	tr.aliveWithin(3*patience, "connections went silent for good")
}

func (tr *Traffic) aliveWithin(bound time.Duration, what string) {
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

func (tr *Traffic) missing() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, id := range tr.confirmed {
		if tr.handled[id] == 0 {
			n++
		}
	}
	return n
}

// Finish stops the traffic and holds it to what was promised: all confirmed messages are handled, none is a dead letter
// and, with ordered, first attempts of a key come in order, save for those that came twice. It returns how many were
// handled more than once.
func (tr *Traffic) Finish() (twice int) {
	tr.Helper()
	tr.halt()
	tr.publishing.Wait()
	for end := time.Now().Add(patience); tr.missing() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if n := tr.missing(); n > 0 || len(tr.confirmed) < 40 {
		tr.Errorf("%d of %d confirmed messages were not handled", n, len(tr.confirmed))
	}
	for len(tr.processes) > 0 {
		tr.Part()
	}
	ctx, cancel := context.WithTimeout(tr.Context(), patience)
	defer cancel()
	if dead, err := tr.broker.DeadLetters(ctx, "g", 1); err != nil || len(dead) != 0 {
		tr.Errorf("dead letters: %v, %v", dead, err)
	}
	for _, n := range tr.handled {
		twice += n - 1
	}
	for key, ids := range tr.order {
		if !tr.ordered {
			break
		}
		seen := map[string]bool{}
		first := slices.DeleteFunc(ids, func(id string) bool {
			again := seen[id]
			seen[id] = true
			return again
		})
		if !slices.IsSorted(first) {
			tr.Errorf("key %s: first attempts out of order", key)
		}
	}
	tr.Logf("%d messages confirmed and handled, %d of them more than once", len(tr.confirmed), twice)
	return twice
}
