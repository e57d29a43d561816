package rabbitmq_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// The connection is cut at the publish while dead letters are given back: each comes, whole, at least once, and none is left behind.
func TestRedriveIsCut(t *testing.T) {
	t.Parallel()
	via, _, p := through(t)
	c := &cutter{}
	p.Filter(c.filter)
	b := open(t, via, rabbitmq.Config{Reconnect: messaging.Exponential(2*time.Millisecond, 25*time.Millisecond), ReportUnknown: true})
	const n = 200
	s := subscribe(t, b, "g", n, "t")
	events := make([]messaging.Envelope, n)
	for i := range events {
		events[i] = messaging.Envelope{ID: fmt.Sprint(i), Type: "t", Key: "k", Headers: map[string]string{"x-tenant": "blue"}, Body: []byte("{}")}
	}
	if err := b.PublishBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := receive(t, s).DeadLetter(t.Context(), errors.New("broken")); err != nil {
			t.Fatal(err)
		}
	}
	c.arm(window{"publish", false, 60<<16 | 40}, 20)
	moved, failures := 0, 0
	for end := time.Now().Add(patience); ; {
		if time.Now().After(end) {
			t.Fatalf("%d moved in %v", moved, patience)
		}
		m, err := b.Redrive(within(t, 20*time.Second), "g", n)
		if moved += m; err != nil {
			failures++
			continue
		}
		if dead, err := b.DeadLetters(within(t, 20*time.Second), "g", 1); err == nil && len(dead) == 0 {
			break
		}
	}
	got := map[string]bool{}
	for len(got) < n {
		d := receive(t, s)
		e := d.Envelope()
		if e.Headers["x-tenant"] != "blue" || e.Key != "k" || string(e.Body) != "{}" || d.Attempt() != 1 {
			t.Fatalf("attempt %d of %+v", d.Attempt(), e)
		}
		if err := d.Ack(t.Context()); err == nil {
			got[e.ID] = true
		}
	}
	if failures == 0 || c.armed() > 0 {
		t.Error("too few redrives were cut")
	}
	t.Logf("%d moved, %d redrives were cut", moved, failures)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
