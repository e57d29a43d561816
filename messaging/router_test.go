package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBoom = errors.New("boom")
	quiet   = slog.New(slog.DiscardHandler)
)

type order struct{ ID string }

// world is a broker and a router inside a synctest bubble.
type world struct {
	*memory.Broker
	r    *messaging.Router
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

// in runs test in a bubble with a router that has not been started.
func in(t *testing.T, cfg messaging.RouterConfig, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := memory.Must(memory.New(memory.Config{Source: "test"}))
		if cfg.Logger == nil {
			cfg.Logger = quiet
		}
		w := &world{Broker: b, r: messaging.Must(messaging.NewRouter(b, cfg)), t: t}
		test(w)
		if w.stop != nil {
			if err := w.end(); err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (w *world) start() {
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop, w.done = stop, make(chan error, 1)
	go func() { w.done <- w.r.Run(ctx) }()
	synctest.Wait()
}

// sleep lets time pass and then all who were woken finish.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) end() error {
	w.stop()
	w.stop = nil
	return <-w.done
}

func (w *world) publish(topic string, payload any, opts ...messaging.Option) {
	w.t.Helper()
	if err := w.Publish(w.t.Context(), topic, payload, opts...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) dead(group string, n int) []messaging.DeadLetter {
	w.t.Helper()
	d, err := w.DeadLetters(w.t.Context(), group, 100)
	if err != nil || len(d) != n {
		w.t.Fatalf("group %s has %d dead letters, want %d (%v)", group, len(d), n, err)
	}
	return d
}

func TestHandleDecodesAndAcks(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var got []string
		g := w.r.Group("g", messaging.GroupConfig{})
		messaging.Handle(g, "orders.created", func(ctx context.Context, m messaging.Message[order]) error {
			got = append(got, fmt.Sprint(m.Data.ID, " ", m.Type, " ", m.Source, " ", m.Attempt, " ", correlation.From(ctx)))
			return nil
		})
		messaging.HandleRaw(g, "orders.*", func(_ context.Context, m messaging.Message[[]byte]) error {
			got = append(got, "pattern "+m.Type+" "+string(m.Data))
			return nil
		})
		w.start()
		if err := w.Publish(correlation.With(w.t.Context(), "c-1"), "orders.created", order{"42"}); err != nil {
			t.Fatal(err)
		}
		w.publish("orders.paid", []byte("raw"))
		synctest.Wait()
		want := []string{"42 orders.created test 1 c-1", "pattern orders.paid raw"}
		if !slices.Equal(got, want) {
			t.Fatalf("handled %q, want %q", got, want)
		}
		if err := w.Publish(w.t.Context(), "nobody", 1); !errors.Is(err, messaging.ErrUnroutable) {
			t.Fatalf("publishing without a queue: %v", err)
		}
	})
}

func TestRetryPausesThenDeadLetter(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var at []time.Duration
		begin := time.Now()
		g := w.r.Group("g", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 3,
			Backoff: messaging.Constant(10 * time.Second)}})
		messaging.HandleRaw(g, "a", func(_ context.Context, m messaging.Message[[]byte]) error {
			at = append(at, time.Since(begin))
			if m.Attempt != len(at) {
				t.Errorf("attempt %d is reported as %d", len(at), m.Attempt)
			}
			return errBoom
		})
		w.start()
		w.publish("a", 1, messaging.WithID("x"))
		w.sleep(time.Minute)
		if want := []time.Duration{0, 10 * time.Second, 20 * time.Second}; !slices.Equal(at, want) {
			t.Fatalf("attempts at %v, want %v", at, want)
		}
		d := w.dead("g", 1)[0]
		if d.ID != "x" || d.Reason != "boom" || d.Attempts != 3 || d.Origin != "g" || string(d.Body) != "1" {
			t.Fatalf("dead letter %+v", d)
		}
	})
}

func TestRetryAfterAndPermanent(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var at []time.Duration
		begin := time.Now()
		g := w.r.Group("g", messaging.GroupConfig{})
		messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error {
			at = append(at, time.Since(begin))
			if len(at) == 1 {
				return fmt.Errorf("wrapped: %w", messaging.RetryAfter(errBoom, 90*time.Second))
			}
			return fmt.Errorf("wrapped: %w", messaging.Permanent(errBoom))
		})
		w.start()
		w.publish("a", 1)
		w.sleep(time.Hour)
		if want := []time.Duration{0, 90 * time.Second}; !slices.Equal(at, want) {
			t.Fatalf("attempts at %v, want %v", at, want)
		}
		if d := w.dead("g", 1)[0]; d.Attempts != 2 || d.Reason != "wrapped: boom" {
			t.Fatalf("dead letter %+v", d)
		}
	})
}

func TestAttemptsWithoutLimit(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		n := 0
		g := w.r.Group("g", messaging.GroupConfig{Retry: messaging.Retry{Attempts: -1,
			Backoff: messaging.Constant(time.Second)}})
		messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error {
			if n++; n < 50 {
				return errBoom
			}
			return nil
		})
		w.start()
		w.publish("a", 1)
		w.sleep(time.Hour)
		if n != 50 {
			t.Fatalf("%d attempts", n)
		}
		w.dead("g", 0)
	})
}

// What no attempt can mend becomes a dead letter at the first: a body that does not decode, and, with one attempt, a
// topic without a handler.
func TestPoisonMessagesBecomeDeadLetters(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		s, err := w.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"stale.binding"},
			Prefetch: 1})
		if err != nil || s.Close() != nil {
			t.Fatal(err)
		}
		g := w.r.Group("g", messaging.GroupConfig{Unhandled: messaging.Retry{Attempts: 1}})
		messaging.Handle(g, "a", func(context.Context, messaging.Message[order]) error { t.Error("handled"); return nil })
		w.start()
		w.publish("a", []byte("{not json"))
		w.publish("stale.binding", order{"1"})
		synctest.Wait()
		d := w.dead("g", 2)
		if string(d[0].Body) != "{not json" || !strings.Contains(d[0].Reason, messaging.ErrDecode.Error()) ||
			d[0].Attempts != 1 {
			t.Fatalf("undecodable: %+v", d[0])
		}
		if !strings.Contains(d[1].Reason, messaging.ErrNoHandler.Error()) {
			t.Fatalf("no handler: %+v", d[1])
		}
	})
}

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

// seen is a Deduplicator that remembers what succeeded.
type seen struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (s *seen) Once(ctx context.Context, consumer, id string, fn func(context.Context) error) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids[consumer+"/"+id] {
		return true, nil
	}
	err := fn(ctx)
	s.ids[consumer+"/"+id] = err == nil
	return false, err
}

func TestDeduplicatorSkipsRepeatedEvents(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		n := 0
		g := w.r.Group("g", messaging.GroupConfig{Dedup: &seen{ids: map[string]bool{}}})
		messaging.HandleRaw(g, "a", func(_ context.Context, m messaging.Message[[]byte]) error {
			if n++; n == 1 {
				return errBoom // a failure is not remembered
			}
			return nil
		})
		w.start()
		w.publish("a", 1, messaging.WithID("x"))
		w.sleep(time.Hour)
		w.publish("a", 1, messaging.WithID("x"))
		w.publish("a", 1, messaging.WithID("y"))
		w.sleep(time.Hour)
		if n != 3 {
			t.Fatalf("the handler ran %d times, want 3", n)
		}
		// The id of an event is unique within its source.
		err := w.PublishBatch(t.Context(), []messaging.Envelope{{Type: "a", ID: "x", Source: "another"},
			{Type: "a", ID: "x", Source: "another"}})
		w.sleep(time.Hour)
		if err != nil || n != 4 {
			t.Fatalf("the handler ran %d times, want 4 after the event of another source, %v", n, err)
		}
		w.dead("g", 0)
	})
}

func TestMiddlewareOrder(t *testing.T) {
	var got []string
	mw := func(name string) messaging.Middleware {
		return func(next messaging.HandlerFunc) messaging.HandlerFunc {
			return func(ctx context.Context, m messaging.Message[[]byte]) error {
				got = append(got, name)
				return next(ctx, m)
			}
		}
	}
	in(t, messaging.RouterConfig{Middleware: []messaging.Middleware{mw("outer"), mw("inner")}}, func(w *world) {
		messaging.HandleRaw(w.r.Group("g", messaging.GroupConfig{}), "a",
			func(context.Context, messaging.Message[[]byte]) error {
				return nil
			})
		w.start()
		w.publish("a", 1)
		synctest.Wait()
	})
	if !slices.Equal(got, []string{"outer", "inner"}) {
		t.Fatal(got)
	}
}

func TestMistakesInSetupPanic(t *testing.T) {
	r := messaging.Must(messaging.NewRouter(memory.Must(memory.New(memory.Config{})), messaging.RouterConfig{}))
	g := r.Group("g", messaging.GroupConfig{})
	h := func(context.Context, messaging.Message[[]byte]) error { return nil }
	messaging.HandleRaw(g, "a.*", h)
	for name, f := range map[string]func(){
		"no name":          func() { r.Group("", messaging.GroupConfig{}) },
		"a name of others": func() { r.Group("other.dead", messaging.GroupConfig{}) },
		"name taken":       func() { r.Group("g", messaging.GroupConfig{}) },
		"pattern taken":    func() { messaging.HandleRaw(g, "a.*", h) },
		"malformed":        func() { messaging.HandleRaw(g, "a.b*", h) },
		"empty pattern":    func() { messaging.HandleRaw(g, "", h) },
		"no subscriber":    func() { messaging.Must(messaging.NewRouter(nil, messaging.RouterConfig{})) },
		"pattern too long": func() { messaging.HandleRaw(g, strings.Repeat("a", 256), h) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
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
