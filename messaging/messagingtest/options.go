package messagingtest

import (
	"errors"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// A group that is made begins where it says, and one that exists goes on.
func startPosition(e *env) {
	const group = "replayed"
	start := messaging.Subscription{Group: group, Patterns: []string{"t"}, Prefetch: 1, Start: messaging.StartEarliest()}
	if !e.features.Replay {
		if _, err := e.Subscribe(e.ctx, start); !errors.Is(err, messaging.ErrUnsupported) {
			e.Fatalf("a start position, which is not declared: %v", err)
		}
		return
	}
	e.bind("g", "t")
	e.publish("t", 1, messaging.WithID("1"), messaging.WithKey("k"))
	time.Sleep(20 * time.Millisecond) // the server's clock goes on
	between := time.Now()
	time.Sleep(20 * time.Millisecond)
	e.publish("t", 2, messaging.WithID("2"), messaging.WithKey("k"))
	late := start
	late.Group, late.Start = "late", messaging.StartAt(between)
	for _, c := range []struct {
		sub  messaging.Subscription
		want []string
	}{{start, []string{"1", "2"}}, {start, nil}, {late, []string{"2"}},
		{messaging.Subscription{Group: "new", Patterns: start.Patterns}, nil}} {
		s, err := e.Subscribe(e.ctx, c.sub)
		e.must(err)
		for _, want := range c.want {
			d := e.receive(s)
			if d.Envelope().ID != want {
				e.Fatalf("group %s gets %s, want %s", c.sub.Group, d.Envelope().ID, want)
			}
			e.must(d.Ack(e.ctx))
		}
		e.nothing(s)
		e.must(s.Close())
	}
}

// An event is delivered at its time, or refused where the broker does not hold it back. A time in the past is none.
func delayedPublish(e *env) {
	const delay = 300 * time.Millisecond
	s := e.subscribe("g", 2, "t")
	e.publish("t", 1, messaging.WithID("past"), messaging.WithDelay(-time.Hour))
	e.must(e.receive(s).Ack(e.ctx))
	begin := time.Now()
	err := e.Publish(e.ctx, "t", 1, messaging.WithID("late"), messaging.WithDelay(delay))
	if !e.features.DelayedPublish {
		if !errors.Is(err, messaging.ErrUnsupported) {
			e.Fatalf("Publish with a delay that is not declared: %v, want %v", err, messaging.ErrUnsupported)
		}
		e.must(s.Close())
		return
	}
	e.must(err)
	e.publish("t", 1, messaging.WithID("now"))
	for _, id := range []string{"now", "late"} {
		d := e.receive(s)
		if d.Envelope().ID != id || !d.Envelope().DeliverAt.IsZero() {
			e.Fatalf("got %s, want %s", d.Envelope().ID, id)
		}
		e.must(d.Ack(e.ctx))
	}
	if waited := time.Since(begin); waited < delay {
		e.Fatalf("delivered after %v, want %v", waited, delay)
	}
	e.must(s.Close())
}
