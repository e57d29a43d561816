package rabbitmq_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// A channel that only nacks is replaced, and logged, while Health says so; the new channel confirms.
func TestChannelThatOnlyNacksIsReplaced(t *testing.T) {
	t.Parallel()
	via, direct, p := through(t)
	if err := subscribe(t, open(t, direct, rabbitmq.Config{}), "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	var nacking atomic.Bool
	p.Filter(func(fromTarget bool) faultproxy.Filter {
		if !fromTarget {
			return nil
		}
		ack := []byte{1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80} // basic.ack on channel 1
		return func(piece []byte) (int, bool) {
			for rest := piece; nacking.Load(); {
				i := bytes.Index(rest, ack)
				if i < 0 {
					break
				}
				rest[i+len(ack)-1] = 120 // basic.nack
				rest = rest[i+len(ack):]
			}
			return len(piece), false
		}
	})
	var logged log
	b := open(t, via, rabbitmq.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	nacking.Store(true)
	nacks := 0
	for ; ; nacks++ {
		err := b.Publish(within(t, 10*time.Second), "t", 1)
		if err == nil {
			break
		}
		if !errors.Is(err, messaging.ErrNacked) || nacks > 50 {
			t.Fatalf("after %d nacks: %v", nacks, err)
		}
		if nacks == 2 {
			if err := b.Health(t.Context()); !errors.Is(err, messaging.ErrBlocked) || !errors.Is(err, messaging.ErrNacked) {
				t.Errorf("Health on nacks only: %v", err)
			}
		}
	}
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("Health after a confirm: %v", err)
	}
	if nacks < 3 || strings.Count(logged.String(), "another channel") != 1 {
		t.Errorf("%d nacks, logged %q", nacks, logged.String())
	}
}

// A full queue nacks rightly: its topic has channels replaced with growing pauses, and others are published beside it.
func TestFullQueueReplacesFewChannels(t *testing.T) {
	t.Parallel()
	_, direct, _ := through(t)
	op := raw(t, direct)
	var logged log
	b := open(t, direct, rabbitmq.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err := subscribe(t, b, "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := op.QueueDeclare("full", true, false, false, false,
		amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	if err := op.QueueBind("full", "full", "microservices", false, nil); err != nil {
		t.Fatal(err)
	}
	nacks := 0
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := b.Publish(within(t, 10*time.Second), "full", 1); errors.Is(err, messaging.ErrNacked) {
			nacks++
		}
		if err := b.Publish(within(t, 10*time.Second), "t", 1); err != nil {
			t.Fatalf("beside a full queue: %v", err)
		}
	}
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("Health while one of two queues is full: %v", err)
	}
	if n := strings.Count(logged.String(), "another channel"); nacks < 50 || n < 1 || n > 3 {
		t.Errorf("%d nacks replaced %d channels", nacks, n)
	}
}

// Publishes that time out without a confirm leave no goroutine each, and Health says that nothing is confirmed.
func TestMissingConfirms(t *testing.T) {
	t.Parallel()
	via, _, p := through(t)
	b := open(t, via, rabbitmq.Config{Heartbeat: time.Minute})
	if err := subscribe(t, b, "g", 1, "t").Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	p.Pause()
	before, n := runtime.NumGoroutine(), 0
	for end := time.Now().Add(5500 * time.Millisecond); time.Now().Before(end); n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if err := b.Publish(ctx, "t", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
	if after := runtime.NumGoroutine(); after > before+n/4 { // other tests run beside this one
		t.Errorf("%d publishes without a confirm left %d goroutines", n, after-before)
	}
	if err := b.Health(t.Context()); !errors.Is(err, messaging.ErrBlocked) ||
		!errors.Is(err, messaging.ErrUnknownOutcome) {
		t.Errorf("Health without confirms: %v", err)
	}
	p.Resume()
	if err := b.Publish(within(t, 20*time.Second), "t", 1); err != nil {
		t.Error(err)
	}
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("Health after a confirm: %v", err)
	}
}
