package live

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

// Unbroken it is a broker like any other.
func TestBrokerConformance(t *testing.T) {
	messagingtest.Run(t, func(*testing.T) messaging.Broker {
		return NewBroker(memory.Must(memory.New(memory.Config{Source: "test", MaxQueue: 3000})))
	}, messagingtest.Features{MaxQueue: 3000})
}

func subscribed(t *testing.T) (*Broker, messaging.Stream) {
	t.Helper()
	b := NewBroker(memory.Must(memory.New(memory.Config{})))
	s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"a"}, Prefetch: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, s
}

func event(id string) []messaging.Envelope {
	return []messaging.Envelope{{ID: id, Type: "a", Source: "test", Body: []byte("{}")}}
}

// Down, the broker takes nothing, says so, and hands out what it holds when it is up again.
func TestBrokerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := subscribed(t)
		if err := b.PublishBatch(t.Context(), event("1")); err != nil {
			t.Fatal(err)
		}
		b.set(brokerDown)
		if err := b.PublishBatch(t.Context(), event("2")); !errors.Is(err, messaging.ErrBlocked) {
			t.Fatalf("PublishBatch while it is down: %v", err)
		}
		if err := b.Publish(t.Context(), "a", 1); !errors.Is(err, messaging.ErrBlocked) {
			t.Fatalf("Publish while it is down: %v", err)
		}
		if err := b.Health(t.Context()); !errors.Is(err, messaging.ErrBlocked) {
			t.Fatalf("Health while it is down: %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if d, err := s.Receive(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Receive while it is down: %v, %v", d, err)
		}
		time.AfterFunc(time.Minute, func() { b.set(brokerUp) })
		d, err := s.Receive(t.Context())
		if err != nil || d.Envelope().ID != "1" || d.Attempt() != 1 {
			t.Fatalf("Receive when it is up again: %v, %v", d, err)
		}
		if err := b.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A stream that is stopped while the broker is down does not hang.
func TestBrokerDownStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := subscribed(t)
		if err := b.PublishBatch(t.Context(), event("1")); err != nil {
			t.Fatal(err)
		}
		b.set(brokerDown)
		time.AfterFunc(time.Second, func() { _ = s.Stop() })
		if _, err := s.Receive(t.Context()); !errors.Is(err, messaging.ErrClosed) {
			t.Fatalf("Receive after Stop: %v", err)
		}
	})
}

// A broker that delivers twice delivers the same event twice: an inbox can tell.
func TestBrokerTwice(t *testing.T) {
	b, s := subscribed(t)
	b.set(brokerTwice)
	if err := b.PublishBatch(t.Context(), event("1")); err != nil {
		t.Fatal(err)
	}
	b.set(brokerUp)
	if err := b.PublishBatch(t.Context(), event("2")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "1", "2"} {
		d, err := s.Receive(t.Context())
		if err != nil || d.Envelope().ID != want {
			t.Fatalf("received %v, %v, want %s", d, err, want)
		}
	}
}
