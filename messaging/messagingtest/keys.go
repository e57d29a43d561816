package messagingtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// Consumers of one group share its keys, and each key's messages come in the order in which they were published, each
// once, while consumers come and go.
func keysAcrossConsumers(e *env) {
	if !e.features.OrderByKey && !e.features.Partitions {
		e.Skip("not declared")
	}
	sub := messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 5}
	if e.features.Partitions {
		sub.Partitions = 6
	}
	const keys, perRound = 20, 2
	first, err := e.Subscribe(e.ctx, sub)
	e.must(err)
	e.must(first.Close())
	done := &log{}
	var mu sync.Mutex
	var by [3]int // messages by consumer
	sum := func(i int) int { mu.Lock(); defer mu.Unlock(); return by[i] }
	consume := func(i int) (stop func()) {
		s, err := e.Subscribe(e.ctx, sub)
		e.must(err)
		ctx, cancel := context.WithCancel(e.ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				d, err := s.Receive(ctx)
				if err != nil {
					return
				}
				id := d.Envelope().ID
				if (id[len(id)-1]-'0')%2 == 0 { // another consumer would overtake with the next message of the key
					time.Sleep(500 * time.Microsecond)
				}
				done.add(id)
				if err := d.Ack(e.ctx); err != nil {
					e.Errorf("a message cannot be acknowledged: %v", err)
				}
				mu.Lock()
				by[i]++
				mu.Unlock()
			}
		})
		return func() { cancel(); wg.Wait(); e.must(s.Close()) }
	}
	published := 0 // of each key
	publish := func() {
		var events []messaging.Envelope
		for k := range keys {
			for i := range perRound {
				events = append(events, messaging.Envelope{Type: "t", Key: fmt.Sprint("k", k), Body: []byte("1"),
					ID: fmt.Sprintf("k%d-%04d", k, published+i)})
			}
		}
		published += perRound
		e.must(e.PublishBatch(e.ctx, events))
	}
	spread := func(consumers ...int) {
		before := [3]int{sum(0), sum(1), sum(2)}
		e.until(fmt.Sprintf("consumers %v to get some", consumers), func() bool {
			publish()
			time.Sleep(20 * time.Millisecond)
			return !slices.ContainsFunc(consumers, func(i int) bool { return sum(i) == before[i] })
		})
	}
	stop0 := consume(0)
	spread(0)
	stop1 := consume(1)
	spread(0, 1)
	stop2 := consume(2)
	spread(0, 1, 2)
	stop0()
	spread(1, 2)
	stop2()
	spread(1)
	e.until("all messages", func() bool { return done.len() >= keys*published })
	time.Sleep(100 * time.Millisecond) // for a duplicate to show
	stop1()
	for k := range keys {
		got := done.of(fmt.Sprintf("k%d-", k))
		if !slices.IsSorted(got) || len(got) != published {
			e.Errorf("key %d: got %d messages, want %d, in order, each once: %s", k, len(got), published, strings.Join(got, " "))
		}
	}
}

// With BlockingRetry a message that fails is tried again before the next one of its key; when its attempts are used up
// it is a dead letter that has their number.
func blockingRetry(e *env) {
	e.bind("g", "t")
	done := &log{}
	e.route(func(r *messaging.Router) {
		g := r.Group("g", messaging.GroupConfig{Concurrency: 3, Ordered: true, BlockingRetry: true,
			Retry: messaging.Retry{Attempts: 3, Backoff: messaging.Constant(5 * time.Millisecond)}})
		messaging.HandleRaw(g, "t", func(_ context.Context, m messaging.Message[[]byte]) error {
			done.add(fmt.Sprint(m.Key, "/", m.ID, "/", m.Attempt))
			if m.ID == "2" || m.ID == "4" && m.Attempt == 1 {
				return errBoom
			}
			return nil
		})
	})
	var events []messaging.Envelope
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		events = append(events, messaging.Envelope{Type: "t", Key: "k", ID: id, Body: []byte("1")})
	}
	e.must(e.PublishBatch(e.ctx, events))
	want := []string{"k/1/1", "k/2/1", "k/2/2", "k/2/3", "k/3/1", "k/4/1", "k/4/2", "k/5/1"}
	e.until("all attempts", func() bool { return done.len() >= len(want) })
	if got := done.of("k/"); !slices.Equal(got, want) {
		e.Fatalf("attempts %v, want %v", got, want)
	}
	if d := e.dead("g", 1)[0]; d.ID != "2" || d.Attempts != 3 {
		e.Fatalf("dead letter %s after %d attempts, want 2 after 3", d.ID, d.Attempts)
	}
}
