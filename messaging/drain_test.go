package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// Draining: a running handler finishes with a live context and is acknowledged; what waits goes back uncounted.
func TestDrainFinishesRunningAndRequeuesWaiting(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		var handled []string
		g := w.r.Group("g", messaging.GroupConfig{Prefetch: 10})
		messaging.HandleRaw(g, "a", func(ctx context.Context, m messaging.Message[[]byte]) error {
			time.Sleep(10 * time.Second)
			handled = append(handled, m.ID)
			return ctx.Err()
		})
		w.start()
		for i := range 5 {
			w.publish("a", i, messaging.WithID(fmt.Sprint(i)))
		}
		w.sleep(15 * time.Second) // the second message is being handled
		begin := time.Now()
		if err := w.end(); err != nil || time.Since(begin) != 5*time.Second {
			t.Fatalf("Run returned %v after %v", err, time.Since(begin))
		}
		if !slices.Equal(handled, []string{"0", "1"}) {
			t.Fatalf("handled %v", handled)
		}
		left(t, w.Broker, "g", "2", "3", "4")
	})
}

// left receives what a queue still holds, in order, all at the first attempt.
func left(t *testing.T, b messaging.Broker, group string, want ...string) {
	t.Helper()
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: group, Prefetch: 100})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for range want {
		d, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Attempt() != 1 {
			t.Errorf("%s was given back at attempt %d", d.Envelope().ID, d.Attempt())
		}
		got = append(got, d.Envelope().ID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if d, err := s.Receive(ctx); err == nil {
		got = append(got, d.Envelope().ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the queue holds %v, want %v", got, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// At the deadline contexts are cancelled, and what that cut short goes back uncounted.
func TestDrainDeadline(t *testing.T) {
	in(t, messaging.RouterConfig{DrainTimeout: 3 * time.Second}, func(w *world) {
		t := w.t
		g := w.r.Group("g", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 1}})
		messaging.HandleRaw(g, "a", func(ctx context.Context, _ messaging.Message[[]byte]) error {
			<-ctx.Done()
			return ctx.Err()
		})
		w.start()
		w.publish("a", 1, messaging.WithID("x"))
		synctest.Wait()
		begin := time.Now()
		if err := w.end(); err != nil || time.Since(begin) != 3*time.Second {
			t.Fatalf("Run returned %v after %v", err, time.Since(begin))
		}
		w.dead("g", 0)
		left(t, w.Broker, "g", "x")
	})
}

// A handler that does not listen to its context cannot hold Run.
func TestDrainGivesUp(t *testing.T) {
	in(t, messaging.RouterConfig{DrainTimeout: -1}, func(w *world) {
		t := w.t
		g := w.r.Group("g", messaging.GroupConfig{})
		messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error {
			time.Sleep(time.Hour)
			return nil
		})
		w.start()
		w.publish("a", 1, messaging.WithID("x"))
		synctest.Wait()
		if err := w.end(); !errors.Is(err, messaging.ErrDrain) {
			t.Fatalf("Run returned %v", err)
		}
		left(t, w.Broker, "g", "x")
		w.sleep(2 * time.Hour)
	})
}

// A drain does not wait for the pause before an attempt in place: the message goes back.
func TestDrainEndsAPauseInPlace(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		t := w.t
		g := w.r.Group("g", messaging.GroupConfig{BlockingRetry: true,
			Retry: messaging.Retry{Attempts: -1, Backoff: messaging.Constant(time.Hour)}})
		messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error { return errors.New("boom") })
		w.start()
		w.publish("a", 1, messaging.WithID("0"))
		w.sleep(time.Minute)
		begin := time.Now()
		if err := w.end(); err != nil || time.Since(begin) != 0 {
			t.Fatalf("Run returned %v after %v", err, time.Since(begin))
		}
		left(t, w.Broker, "g", "0")
	})
}
