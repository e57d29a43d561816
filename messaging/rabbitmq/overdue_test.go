package rabbitmq_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// A handler that runs longer than the server's consumer timeout is tried as often as the group says, and no more: each
// channel that is lost to it is an attempt, and the reason is logged. What was only prefetched behind it is handled.
func TestConsumerTimeoutCountsAsAttempt(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "a server is started: run without -short")
	}
	t.Parallel()
	node := testenv.RabbitMQNode(t)
	node.Control(t, "eval",
		"application:set_env(rabbit, consumer_timeout, 700), application:set_env(rabbit, channel_tick_interval, 200).")
	var logged log
	b := open(t, node.URL(), rabbitmq.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		Reconnect: messaging.Constant(20 * time.Millisecond)})
	r := messaging.Must(messaging.NewRouter(b, messaging.RouterConfig{Logger: quiet, DrainTimeout: -1}))
	var slow, good atomic.Int32
	g := r.Group("g", messaging.GroupConfig{Concurrency: 4, Retry: messaging.Retry{Attempts: 2}})
	messaging.HandleRaw(g, "slow", func(ctx context.Context, _ messaging.Message[[]byte]) error {
		slow.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(6 * time.Second):
		}
		return nil
	})
	messaging.HandleRaw(g, "good", func(context.Context, messaging.Message[[]byte]) error { good.Add(1); return nil })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := b.Publish(t.Context(), "slow", 1, messaging.WithID("x"))
		if err == nil {
			break
		}
		if !errors.Is(err, messaging.ErrUnroutable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := b.Publish(t.Context(), "good", 1); err != nil {
		t.Fatal(err)
	}
	var dead []messaging.DeadLetter
	for end := time.Now().Add(15 * time.Second); len(dead) == 0 &&
		time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var err error
		if dead, err = b.DeadLetters(t.Context(), "g", 2); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(dead) != 1 || dead[0].ID != "x" || !strings.Contains(dead[0].Reason, messaging.ErrAttempts.Error()) {
		t.Errorf("dead letters: %v", dead)
	}
	// The server's clock of a delivery starts before ours. One that a loaded machine receives late is not counted, and
	// runs once more.
	if slow.Load() < 2 || good.Load() < 1 || !strings.Contains(dead[0].Reason, "2 of 2 attempts") {
		t.Errorf("the slow handler ran %d times, the good one %d; %s", slow.Load(), good.Load(), dead[0].Reason)
	}
	if n := strings.Count(logged.String(), "timed out"); n < 2 {
		t.Errorf("the reason was logged %d times: %s", n, logged.String())
	}
}
