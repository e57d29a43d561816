package outboxtest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
)

// one claims a single entry, by Claim or by ClaimHeld.
func (e *env) one(held bool) outbox.Entry {
	e.t.Helper()
	claim := e.Store.Claim
	if held {
		claim = e.Store.ClaimHeld
	}
	entries, err := claim(e.t.Context(), "me", 10, time.Minute)
	if err != nil || len(entries) != 1 {
		e.t.Fatalf("claimed %v, %v; want one entry (held: %v)", entries, err, held)
	}
	return entries[0]
}

func (e *env) hold(entry outbox.Entry, h outbox.Hold) {
	e.t.Helper()
	if err := e.Store.Hold(e.t.Context(), "me", []outbox.Entry{entry}, h); err != nil {
		e.t.Fatal(err)
	}
}

// Hold counts an attempt, unless Hold.Uncounted is set.
func holdCounts(t *testing.T, e *env) {
	e.commit(event("1", "k"))
	e.hold(e.one(false), outbox.Hold{StopsKey: true, Uncounted: true})
	entry := e.one(true)
	if entry.Attempts != 0 {
		t.Errorf("after an uncounted hold there are %d attempts, want 0", entry.Attempts)
	}
	e.hold(entry, outbox.Hold{StopsKey: true})
	if entry = e.one(true); entry.Attempts != 1 {
		t.Errorf("after a counted hold there are %d attempts, want 1", entry.Attempts)
	}
}

// Operators list held events, retry them, let the others of their keys pass, and drop them.
func heldStore(t *testing.T, e *env) {
	ctx := t.Context()
	s, ok := e.Store.(outbox.HeldStore)
	if !ok {
		t.Fatalf("%T is no outbox.HeldStore", e.Store)
	}
	list := func(n int) []outbox.Held {
		t.Helper()
		held, err := s.ListHeld(ctx, 10)
		if err != nil || len(held) < n {
			t.Fatalf("held: %+v, %v; want at least %d", held, err, n)
		}
		return held
	}
	is := func(what string, want int64) func(n int64, err error) {
		return func(n int64, err error) {
			t.Helper()
			if n != want || err != nil {
				t.Errorf("%s: %d, %v; want %d", what, n, err, want)
			}
		}
	}
	e.commit(event("first", "k"))
	e.hold(e.one(false), outbox.Hold{Pause: time.Hour, StopsKey: true})
	first := list(1)[0]
	if first.ID != "first" || first.Key != "k" || first.Attempts != 1 || !first.StopsKey ||
		time.Until(first.Until) < 50*time.Minute {
		t.Errorf("held: %+v", first)
	}
	e.commit(event("second", "k"))
	is("retried", 1)(s.RetryHeld(ctx))
	again, err := e.Store.ClaimHeld(ctx, "me", 10, time.Minute)
	if err != nil || len(again) == 0 || again[0].ID != "first" {
		t.Fatalf("claimed %v, %v; want the first event, retried", again, err)
	}
	if err := e.Store.Hold(ctx, "me", again, outbox.Hold{Pause: time.Hour, StopsKey: true}); err != nil {
		t.Fatal(err)
	}
	b := &broker{}
	b.say(func(ev messaging.Envelope) error {
		if ev.ID == "first" {
			return messaging.ErrNacked
		}
		return nil
	})
	is("skipped", 1)(s.SkipHeld(ctx, first.Ref))
	e.expect(b, "second")

	e.commit(event("third", "k"))
	is("dropped", 1)(s.DropHeld(ctx, first.Ref))
	is("dropped twice", 0)(s.DropHeld(ctx, first.Ref))
	e.expect(b, "second", "third")
	e.pending(0)
	if held, err := s.ListHeld(ctx, 10); len(held) != 0 || err != nil {
		t.Errorf("held at the end: %+v, %v", held, err)
	}
}

// expect runs a relay until it has published the events of key k, in this order.
func (e *env) expect(b *broker, want ...string) {
	e.t.Helper()
	stop := e.relay(b, outbox.RelayConfig{Poll: 10 * time.Millisecond})
	defer stop()
	e.until(fmt.Sprint("published: ", want), func() bool { return slices.Equal(b.ids("k"), want) })
}
