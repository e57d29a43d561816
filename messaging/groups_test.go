package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// Ordered groups handle the messages of a key one at a time and in order, and those of other keys meanwhile.
func TestOrderedGroupsKeepTheOrderOfKeys(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var mu sync.Mutex
		var busy, most atomic.Int32
		seen, running := map[string][]string{}, map[string]bool{}
		g := w.r.Group("g", messaging.GroupConfig{Concurrency: 8, Ordered: true})
		messaging.HandleRaw(g, "a", func(_ context.Context, m messaging.Message[[]byte]) error {
			most.Store(max(most.Load(), busy.Add(1)))
			defer busy.Add(-1)
			mu.Lock()
			if running[m.Key] {
				t.Error("two at once for key " + m.Key)
			}
			running[m.Key] = true
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			running[m.Key] = false
			seen[m.Key] = append(seen[m.Key], string(m.Data))
			return nil
		})
		w.start()
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			for k := range 6 {
				w.publish("a", i, messaging.WithKey(fmt.Sprint("k", k)))
			}
		}
		w.sleep(time.Hour)
		for k, got := range seen {
			if !slices.Equal(got, want) {
				t.Errorf("key %s: %v", k, got)
			}
		}
		if len(seen) != 6 || most.Load() < 2 {
			t.Errorf("%d keys, at most %d at once", len(seen), most.Load())
		}
	})
}

func TestConcurrencyBoundsHandlers(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var busy, most, n atomic.Int32
		g := w.r.Group("g", messaging.GroupConfig{Concurrency: 7})
		messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error {
			most.Store(max(most.Load(), busy.Add(1)))
			time.Sleep(time.Second)
			busy.Add(-1)
			n.Add(1)
			return nil
		})
		w.start()
		for i := range 50 {
			w.publish("a", i)
		}
		w.sleep(time.Minute)
		if most.Load() != 7 || n.Load() != 50 {
			t.Fatalf("%d at once, %d in all", most.Load(), n.Load())
		}
	})
}

// While versions roll, processes of the old version get messages of a topic that only the new one handles.
func TestRollingDeployHandlesEachMessageOfANewTopic(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		const n = 100
		old := w.r.Group("g", messaging.GroupConfig{Concurrency: 4})
		messaging.HandleRaw(old, "a", func(context.Context, messaging.Message[[]byte]) error { return nil })
		w.start()
		next := messaging.Must(messaging.NewRouter(w.Broker, messaging.RouterConfig{Logger: quiet}))
		g := next.Group("g", messaging.GroupConfig{Concurrency: 4})
		handled := make(chan int, n)
		messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error { return nil })
		messaging.HandleRaw(g, "b", func(_ context.Context, m messaging.Message[[]byte]) error {
			handled <- m.Attempt
			return nil
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- next.Run(ctx) }()
		synctest.Wait()
		for range n {
			w.publish("b", order{"1"})
		}
		w.sleep(12 * time.Minute)
		w.dead("g", 0)
		if len(handled) != n {
			t.Errorf("handled %d, want %d", len(handled), n)
		}
		for len(handled) > 0 {
			if attempt := <-handled; attempt != 1 {
				t.Errorf("got attempt %d, want 1: deliveries without a handler do not count", attempt)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Of a group with a single active process one handles all messages; when it is shut down with messages on their way,
// the other one goes on in order.
func TestSingleActiveProcess(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var mu sync.Mutex
		var got []string
		add := func(r *messaging.Router, process string) {
			g := r.Group("g", messaging.GroupConfig{Ordered: true, SingleActive: true, Prefetch: 5})
			messaging.Handle(g, "a", func(_ context.Context, m messaging.Message[int]) error {
				time.Sleep(time.Second)
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprint(process, m.Data))
				return nil
			})
		}
		add(w.r, "x")
		w.start()
		second := messaging.Must(messaging.NewRouter(w.Broker, messaging.RouterConfig{Logger: quiet}))
		add(second, "y")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- second.Run(ctx) }()
		synctest.Wait()
		for i := range 8 {
			w.publish("a", i, messaging.WithKey("k"))
		}
		w.sleep(3500 * time.Millisecond) // in the fourth
		if err := w.end(); err != nil {
			t.Error(err)
		}
		w.sleep(time.Minute)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []string{"x0", "x1", "x2", "x3", "y4", "y5", "y6", "y7"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// Every process of an ephemeral group gets every event, and its queue goes with it.
func TestEphemeralGroup(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var n atomic.Int32
		handle := func(r *messaging.Router) {
			g := r.Group("cache", messaging.GroupConfig{Ephemeral: true, Retry: messaging.Retry{Attempts: 2,
				Backoff: messaging.Constant(time.Second)}})
			messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error { n.Add(1); return errBoom })
		}
		handle(w.r)
		w.start()
		second := messaging.Must(messaging.NewRouter(w.Broker, messaging.RouterConfig{Logger: quiet}))
		handle(second)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- second.Run(ctx) }()
		synctest.Wait()
		w.publish("a", 1)
		w.sleep(time.Minute)
		if n.Load() != 4 {
			t.Errorf("%d attempts, want two in each process", n.Load())
		}
		stop()
		if err := errors.Join(<-done, w.end()); err != nil {
			t.Error(err)
		}
		if err := w.Publish(t.Context(), "a", 1); !errors.Is(err, messaging.ErrUnroutable) {
			t.Errorf("publish afterwards: %v, want ErrUnroutable", err)
		}
	})
}
