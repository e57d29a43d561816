package rabbitmq

import (
	"context"
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
)

// block tells a connection what the server would: a real alarm would stop every other test on it.
func block(c *conn, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocked = ""
	if on {
		c.blocked = "blocked by the server: low on memory"
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// While publishers are blocked Publish ends with its context, consumers go on, and what waited is sent afterwards.
func TestBlockedPublishersDoNotStopConsumers(t *testing.T) {
	b := Must(New(testenv.RabbitMQ(t), Config{Source: "test"}))
	defer b.Close()
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := b.Publish(t.Context(), "t", i); err != nil {
			t.Fatal(err)
		}
	}
	c, err := b.pub.link.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	block(c, true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = b.Publish(ctx, "t", 2)
	if !errors.Is(err, messaging.ErrBlocked) || !errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, messaging.ErrUnknownOutcome) {
		t.Errorf("Publish: %v", err)
	}
	if err := b.Health(t.Context()); !errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("Health: %v", err)
	}
	for range 2 {
		d, err := s.Receive(t.Context())
		if err != nil || d.Ack(t.Context()) != nil {
			t.Fatalf("a consumer was held up: %v", err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- b.Publish(t.Context(), "t", 3) }()
	select {
	case err := <-done:
		t.Fatalf("Publish did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	block(c, false)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What the server says on the wire about blocking is understood, and drained to the end.
func TestBlockedFramesAreReadFromTheWire(t *testing.T) {
	c := &conn{gone: make(chan struct{}), changed: make(chan struct{})}
	closed, blocked := make(chan *amqp.Error, 1), make(chan amqp.Blocking)
	ended := make(chan struct{})
	go func() { c.watch(closed, blocked); close(ended) }()
	_, changed := c.blockedBy()
	blocked <- amqp.Blocking{Active: true, Reason: "low on disk"}
	<-changed
	if reason, _ := c.blockedBy(); reason != "blocked by the server: low on disk" {
		t.Errorf("blocked: %q", reason)
	}
	_, changed = c.blockedBy()
	blocked <- amqp.Blocking{}
	<-changed
	if reason, _ := c.blockedBy(); reason != "" {
		t.Errorf("unblocked: %q", reason)
	}
	closed <- &amqp.Error{Code: 320, Reason: "shutdown"}
	close(closed)
	<-c.gone
	close(blocked)
	<-ended
	if err := c.why(); err == nil {
		t.Error("the reason was lost")
	}
}
