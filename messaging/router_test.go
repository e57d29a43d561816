package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
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
