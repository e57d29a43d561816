package messaging_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
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
