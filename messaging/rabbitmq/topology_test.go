package rabbitmq_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// Queues and exchange that are deleted under a running program are made anew.
func TestTopologyDeletedLive(t *testing.T) {
	direct := testenv.RabbitMQ(t)
	b := open(t, direct, rabbitmq.Config{})
	s := subscribe(t, b, "g", 1, "t")
	op := raw(t, direct)
	exchange := func(what string) {
		t.Helper()
		ctx := within(t, 20*time.Second)
		for err := b.Publish(ctx, "t", 1); err != nil; err = b.Publish(ctx, "t", 1) { // until the binding is back
			if !errors.Is(err, messaging.ErrUnroutable) {
				t.Fatalf("%s: %v", what, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		d := receive(t, s)
		if err := d.Retry(ctx, 50*time.Millisecond, nil); err != nil {
			t.Fatalf("%s: retry: %v", what, err)
		}
		if err := receive(t, s).Ack(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	exchange("before")
	if _, err := op.QueueDelete("g", false, false, false); err != nil {
		t.Fatal(err)
	}
	exchange("the queue was deleted")
	if err := op.ExchangeDelete("microservices", false, false); err != nil {
		t.Fatal(err)
	}
	exchange("the exchange was deleted")
	for _, q := range []string{"g.retry.100ms", "g.dead"} {
		if _, err := op.QueueDelete(q, false, false, false); err != nil {
			t.Fatal(err)
		}
	}
	exchange("the retry queue was deleted")
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, s).DeadLetter(t.Context(), errors.New("x")); err != nil {
		t.Fatalf("the dead-letter queue was deleted: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A message that reaches a queue of retries before the server has set the queue's limit comes back, and so do those
// behind it: the server puts messages of other channels into a queue while it is being declared.
func TestRetriesComeBackFromAQueueWithoutALimit(t *testing.T) {
	t.Parallel()
	direct := testenv.RabbitMQ(t)
	b := open(t, direct, rabbitmq.Config{})
	s := subscribe(t, b, "g", 2, "t")
	_, err := raw(t, direct).QueueDeclare("g.retry.100ms", true, false, false, false, amqp.Table{"x-queue-type": "quorum",
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "g", "x-dead-letter-strategy": "at-least-once",
		"x-overflow": "reject-publish"})
	if err != nil {
		t.Fatal(err)
	}
	const n = 3
	for i := range n {
		if err := b.Publish(t.Context(), "t", i); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, s).Retry(t.Context(), 50*time.Millisecond, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		d := receive(t, s)
		if d.Attempt() != 2 {
			t.Errorf("%s comes at attempt %d, want 2", d.Envelope().ID, d.Attempt())
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Exchange and queue are deleted ten times each while messages are published and handled: each publish in flight
// reports how it ends, consumers go on, and nothing that was confirmed is missing. A queue takes along what it holds,
// so it is deleted empty.
func TestDeletedUnderLoad(t *testing.T) {
	t.Parallel()
	direct := testenv.RabbitMQ(t)
	tr := flow(t, direct, rabbitmq.Config{}, messaging.ErrUnroutable) // until the binding is back
	tr.alive("the start")
	op := raw(t, direct)
	for range 10 {
		if err := op.ExchangeDelete("microservices", false, false); err != nil {
			t.Fatal(err)
		}
		tr.alive("the exchange was deleted")
		tr.still(func() {
			if _, err := op.QueueDelete("g", false, false, false); err != nil {
				t.Fatal(err)
			}
		})
		tr.alive("the queue was deleted")
	}
	tr.finish()
}

// A queue that exists with other arguments is said clearly and at once.
func TestTopologyMismatch(t *testing.T) {
	direct := testenv.RabbitMQ(t)
	if _, err := raw(t, direct).QueueDeclare("g", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	b := open(t, direct, rabbitmq.Config{})
	_, err := b.Subscribe(within(t, 20*time.Second), messaging.Subscription{Group: "g", Patterns: []string{"t"}})
	if !errors.Is(err, rabbitmq.ErrTopology) {
		t.Fatalf("Subscribe: %v", err)
	}
}

// A message whose consumers are lost too often ends in the dead letters, where a limit is set, and nowhere else.
func TestDeliveryLimit(t *testing.T) {
	direct := testenv.RabbitMQ(t)
	b := open(t, direct, rabbitmq.Config{DeliveryLimit: 2, Reconnect: messaging.Exponential(2*time.Millisecond,
		25*time.Millisecond)})
	s := subscribe(t, b, "g", 1, "t")
	if err := b.Publish(t.Context(), "t", 1, messaging.WithID("x")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if id := receive(t, s).Envelope().ID; id != "x" {
			t.Fatalf("received %s", id)
		}
		if err := testenv.CloseConnections(t, direct); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		dead, err := b.DeadLetters(t.Context(), "g", 10)
		if len(dead) == 1 && dead[0].ID == "x" && strings.Contains(dead[0].Reason, "delivery_limit") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("dead letters: %v, %v", dead, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// So is an exchange of another type, by everything that needs it.
func TestExchangeMismatch(t *testing.T) {
	direct := testenv.RabbitMQ(t)
	if err := raw(t, direct).ExchangeDeclare("microservices", "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	b := open(t, direct, rabbitmq.Config{})
	if err := b.Publish(within(t, 300*time.Millisecond), "t", 1); !errors.Is(err, rabbitmq.ErrTopology) ||
		!errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("Publish: %v", err)
	}
	if err := b.Health(t.Context()); !errors.Is(err, rabbitmq.ErrTopology) {
		t.Errorf("Health: %v", err)
	}
	if _, err := b.Subscribe(within(t, 20*time.Second), messaging.Subscription{Group: "g"}); !errors.Is(err,
		rabbitmq.ErrTopology) {
		t.Errorf("Subscribe: %v", err)
	}
}
