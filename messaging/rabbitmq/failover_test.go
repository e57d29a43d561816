package rabbitmq_test

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// Of two nodes one is frozen, then refuses: publishing and consuming go on by the other one, and stay there.
func TestFailoverLeavesAFrozenNode(t *testing.T) {
	t.Parallel()
	direct := testenv.RabbitMQ(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p1, p2 := faultproxy.New(t, u.Host), faultproxy.New(t, u.Host)
	p2.Refuse(true) // so that both connections are made to the first
	b := open(t, fmt.Sprintf("amqp://%s@%s,%s%s", u.User, p1.Addr(), p2.Addr(), u.EscapedPath()),
		rabbitmq.Config{Heartbeat: time.Second})
	s := subscribe(t, b, "g", 1, "t")
	one := func(what string, patience time.Duration) {
		t.Helper()
		start := time.Now()
		if err := b.Publish(within(t, patience), "t", 1); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for {
			d, err := s.Receive(within(t, patience))
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if err := d.Ack(t.Context()); err == nil {
				break
			} else if !errors.Is(err, messaging.ErrClosed) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		t.Logf("%s: a pause of %v", what, time.Since(start))
	}
	one("the start", 10*time.Second)
	p2.Refuse(false)
	p1.Pause()
	one("a frozen node", 25*time.Second)
	n := p1.Connections()
	one("the other node", 5*time.Second)
	if got := p1.Connections(); got != n {
		t.Errorf("%d connections were made to the frozen node", got-n)
	}
	p1.Resume()
	p2.Refuse(true)
	p2.Cut()
	one("a node that refuses", 20*time.Second)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A pause that is longer than a queue can hold a message is made of several, and the attempt counts once.
func TestLongPausesAreMadeOfSeveral(t *testing.T) {
	t.Parallel()
	direct := testenv.RabbitMQ(t)
	b := open(t, direct, rabbitmq.Config{})
	s := subscribe(t, b, "g", 2, "t")
	if err := b.Publish(t.Context(), "t", 1, messaging.WithID("x")); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	if err := receive(t, s).Retry(t.Context(), 40*day, nil); err != nil {
		t.Fatal(err)
	}
	op := raw(t, direct)
	m, ok, err := op.Get("g.retry.28d", true)
	if err != nil || !ok || m.Headers["x-sillar-wait"] != int64(12*day/time.Second) {
		t.Fatalf("after 28 days it waits on for %v seconds (%v, %v)", m.Headers["x-sillar-wait"], ok, err)
	}
	m.Headers["x-sillar-wait"] = int64(1) // the 28 days are over
	start := time.Now()
	if err := op.Publish("", "g", false, false, amqp.Publishing{Headers: m.Headers, MessageId: m.MessageId,
		Body: m.Body}); err != nil {
		t.Fatal(err)
	}
	d := receive(t, s)
	if waited := time.Since(start); waited < time.Second || d.Attempt() != 2 || d.Envelope().ID != "x" ||
		d.Envelope().Type != "t" {
		t.Errorf("after %v came %v at attempt %d", waited, d.Envelope(), d.Attempt())
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
