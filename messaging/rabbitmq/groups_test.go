package rabbitmq_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// Each stream of an ephemeral group gets every event, in a queue that goes with it; a retry comes to the same stream,
// and what is given up is logged.
func TestEphemeralGroups(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	var logged log
	b := open(t, url, rabbitmq.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	useEphemeral(t, b)
	if n := strings.Count(logged.String(), "ephemeral group was dropped"); n != 2 {
		t.Errorf("%d dropped messages were logged, want 2: %s", n, logged.String())
	}
	if err := b.Publish(t.Context(), "t", 1); !errors.Is(err, messaging.ErrUnroutable) {
		t.Errorf("publish after the streams were closed: %v, want ErrUnroutable", err)
	}
}

// useEphemeral publishes to two instances and closes them.
func useEphemeral(t *testing.T, b *rabbitmq.Broker) {
	t.Helper()
	var streams []messaging.Stream
	for range 2 {
		s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "cache", Patterns: []string{"t"}, Prefetch: 5,
			Ephemeral: true})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	if err := b.Publish(t.Context(), "t", 1, messaging.WithID("x")); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		d := receive(t, s)
		if err := d.Retry(t.Context(), 20*time.Millisecond, errors.New("boom")); err != nil {
			t.Fatal(err)
		}
		d = receive(t, s)
		if d.Attempt() != 2 || d.Envelope().ID != "x" || d.Envelope().Type != "t" {
			t.Errorf("attempt %d of %v, want the second of x", d.Attempt(), d.Envelope())
		}
		if err := d.DeadLetter(t.Context(), errors.New("boom")); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range streams {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// An operator unbinds a group and deletes its queues, when they are empty and not in use.
func TestUnbindAndDeleteGroup(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t)
	b := open(t, url, rabbitmq.Config{})
	unbind(t, b)
	if err := b.Publish(t.Context(), "new", 1); err != nil {
		t.Fatal(err)
	}
	op := raw(t, url)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // a quorum queue takes a moment to count
		if q, err := op.QueueDeclarePassive("g", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		} else if q.Messages == 1 && q.Consumers == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the queue does not show its message")
		}
	}
	if err := b.DeleteGroup(t.Context(), "g"); !errors.Is(err, rabbitmq.ErrInUse) {
		t.Errorf("delete a group with messages: %v, want ErrInUse", err)
	}
	if _, err := op.QueuePurge("g", false); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.DeleteGroup(t.Context(), "g"), b.DeleteGroup(t.Context(), "g")); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"g", "g.dead", "g.retry.100ms"} {
		if _, err := raw(t, url).QueueDeclarePassive(q, true, false, false, false, nil); !isNotFound(err) {
			t.Errorf("queue %s: %v, want none", q, err)
		}
	}
}

// unbind takes a topic from a group and checks what it still receives.
func unbind(t *testing.T, b *rabbitmq.Broker) {
	t.Helper()
	s := subscribe(t, b, "g", 1, "old", "new")
	if err := b.Publish(t.Context(), "new", 1); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, s).Retry(t.Context(), 100*time.Millisecond, errors.New("boom")); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteGroup(t.Context(), "g"); !errors.Is(err, rabbitmq.ErrInUse) {
		t.Errorf("delete a group with a consumer: %v, want ErrInUse", err)
	}
	if err := receive(t, s).Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Unbind(t.Context(), "g", "old", "never.bound"),
		b.Unbind(t.Context(), "none", "old")); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "old", 1); !errors.Is(err, messaging.ErrUnroutable) {
		t.Errorf("publish to an unbound topic: %v, want ErrUnroutable", err)
	}
}

func isNotFound(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == amqp.NotFound
}
