// Package outboxtest checks that an outbox keeps the promises of package outbox.
package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
	"github.com/sillar-go/sillar/messaging/outbox"
)

// Box is an empty outbox under test.
type Box struct {
	Store outbox.Store
	// Commit stores events of one key in one transaction, which is then committed or, when fail is an error, ended
	// with it.
	Commit func(ctx context.Context, fail error, events ...messaging.Envelope) error
	// Poll is how often relays look. Default a minute: the box must wake them.
	Poll time.Duration
}

// Run runs all checks, each on a box of its own.
func Run(t *testing.T, factory func(t *testing.T) Box) {
	t.Helper()
	for _, c := range []struct {
		name  string
		check func(*testing.T, *env)
	}{
		{"CommittedOnly", committedOnly},
		{"OrderAcrossRelays", order},
		{"StuckKeyHoldsItselfOnly", stuck},
		{"NoBroker", noBroker},
		{"LeaseOfADeadRelay", deadRelay},
		{"Unroutable", unroutable},
		{"NewEventsDoNotWaitForHeldOnes", newBesideHeld},
		{"HoldCounts", holdCounts},
		{"HeldEventsForOperators", heldStore},
		{"DrainFinishesTheBatch", drain},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &env{Box: factory(t), t: t}
			if e.Poll == 0 {
				e.Poll = time.Minute
			}
			c.check(t, e)
		})
	}
}

const patience = 20 * time.Second

var errBoom = errors.New("boom")

type env struct {
	Box
	t *testing.T
}

// broker records what is published, and answers what verdict says.
type broker struct {
	mu        sync.Mutex
	published []messaging.Envelope
	verdict   func(e messaging.Envelope) error
	calls     int
}

func (b *broker) Publish(context.Context, string, any, ...messaging.Option) error {
	return errors.New("outboxtest: the relay publishes batches")
}

func (b *broker) PublishBatch(_ context.Context, events []messaging.Envelope) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	errs := make([]error, len(events))
	for i, e := range events {
		if b.verdict != nil {
			errs[i] = b.verdict(e)
		}
		if errs[i] == nil {
			b.published = append(b.published, e)
		}
	}
	return driver.Batch(errs)
}

func (b *broker) say(v func(e messaging.Envelope) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verdict = v
}

// ids returns what was published, of one key or ("*") of all.
func (b *broker) ids(key string) (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.published {
		if key == "*" || e.Key == key {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func (e *env) relay(b messaging.Publisher, cfg outbox.RelayConfig) (stop func()) {
	e.t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Poll == 0 {
		cfg.Poll = e.Poll
	}
	r := outbox.Must(outbox.NewRelay(e.Store, b, cfg))
	ctx, cancel := context.WithCancel(e.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				e.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			e.t.Error("Run does not return")
		}
	})
	e.t.Cleanup(stop)
	return stop
}

func (e *env) commit(events ...messaging.Envelope) {
	e.t.Helper()
	if err := e.Commit(e.t.Context(), nil, events...); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) until(what string, ok func() bool) {
	e.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			e.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func (e *env) pending(n int64) {
	e.t.Helper()
	e.until(fmt.Sprint(n, " pending"), func() bool {
		count, oldest, err := e.Store.Pending(e.t.Context())
		if err != nil {
			e.t.Fatal(err)
		}
		if count > 0 && time.Since(oldest).Abs() > time.Hour {
			e.t.Fatalf("the oldest is of %v", oldest)
		}
		return count == n
	})
}

func event(id, key string) messaging.Envelope {
	return messaging.Envelope{ID: id, Type: "t." + strings.ToLower(key), Key: key, Body: []byte(`{"n":1}`),
		Headers: map[string]string{"x-tenant": "blue"}}
}

func committedOnly(t *testing.T, e *env) {
	b := &broker{}
	e.commit(event("1", "a"), event("2", "a"))
	if err := e.Commit(t.Context(), errBoom, event("lost", "a")); !errors.Is(err, errBoom) {
		t.Fatalf("a transaction that fails: %v", err)
	}
	e.pending(2)
	e.relay(b, outbox.RelayConfig{})
	e.until("two events", func() bool { return len(b.ids("*")) == 2 })
	e.commit(event("3", "b"))
	e.until("a third", func() bool { return len(b.ids("*")) == 3 }) // woken, not polled
	e.pending(0)
	if got := b.ids("*"); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Fatalf("published %v", got)
	}
	got := b.published[0]
	if got.Type != "t.a" || got.Source == "" || got.Key != "a" || got.Time.IsZero() ||
		got.ContentType != "application/json" ||
		string(got.Body) != `{"n":1}` || got.Headers["x-tenant"] != "blue" {
		t.Fatalf("published %+v", got)
	}
}

// Three relays at once: each event once, and those of a key in order.
func order(t *testing.T, e *env) {
	const keys, each = 8, 12
	b := &broker{}
	for range 3 {
		e.relay(b, outbox.RelayConfig{Batch: 7, Poll: 20 * time.Millisecond})
	}
	var wg sync.WaitGroup
	for k := range keys {
		wg.Go(func() {
			for i := range each {
				if err := e.Commit(t.Context(), nil, event(fmt.Sprintf("%d-%02d", k, i), fmt.Sprint("k", k))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	e.until("all events", func() bool { return len(b.ids("*")) >= keys*each })
	e.pending(0)
	for k := range keys {
		var want []string
		for i := range each {
			want = append(want, fmt.Sprintf("%d-%02d", k, i))
		}
		if got := b.ids(fmt.Sprint("k", k)); !slices.Equal(got, want) {
			t.Errorf("key %d: %v", k, got)
		}
	}
}

func stuck(t *testing.T, e *env) {
	b := &broker{}
	b.say(func(ev messaging.Envelope) error {
		if ev.ID == "a1" {
			return messaging.ErrNacked
		}
		return nil
	})
	e.commit(event("a0", "a"), event("a1", "a"), event("a2", "a"))
	e.commit(event("b0", "b"))
	e.relay(b, outbox.RelayConfig{Backoff: messaging.Constant(100 * time.Millisecond), Poll: 50 * time.Millisecond})
	e.until("the other key", func() bool { return len(b.ids("b")) == 1 })
	e.commit(event("b1", "b"))
	e.until("the other key again", func() bool { return len(b.ids("b")) == 2 })
	time.Sleep(250 * time.Millisecond)
	if got := b.ids("a"); !slices.Equal(got, []string{"a0"}) {
		t.Fatalf("of the stuck key %v were published", got)
	}
	e.pending(2)
	b.say(nil)
	e.until("the stuck key", func() bool { return len(b.ids("a")) == 3 })
	if got := b.ids("a"); !slices.Equal(got, []string{"a0", "a1", "a2"}) {
		t.Fatalf("published %v", got)
	}
	e.pending(0)
}

func noBroker(t *testing.T, e *env) {
	b := &broker{}
	b.say(func(messaging.Envelope) error { return messaging.ErrBlocked })
	e.commit(event("1", "a"), event("2", "a"))
	e.commit(event("3", "b"))
	e.relay(b, outbox.RelayConfig{Backoff: messaging.Constant(time.Hour)}) // no event is to blame
	e.until("two tries", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.calls >= 2 })
	e.pending(3)
	b.say(nil)
	e.until("all", func() bool { return len(b.ids("*")) == 3 })
	e.pending(0)
}

// What a dead relay had claimed goes to the next when the lease ends; the dead one, should it wake, deletes nothing.
func deadRelay(t *testing.T, e *env) {
	ctx, b := t.Context(), &broker{}
	e.commit(event("1", "a"))
	e.commit(event("2", "a")) // waits behind the first, which another relay has on lease
	var held []outbox.Entry
	for lease := 300 * time.Millisecond; ; lease *= 2 { // until another relay claims before its end
		begin := time.Now()
		var err error
		held, err = e.Store.Claim(ctx, "dead", 1, lease)
		if err != nil || len(held) != 1 {
			t.Fatalf("claim: %v, %v", held, err)
		}
		more, err := e.Store.Claim(ctx, "other", 10, 50*time.Millisecond)
		inTime := time.Since(begin) < lease
		time.Sleep(lease + 50*time.Millisecond)
		if err == nil && len(more) == 0 {
			break
		}
		if err != nil || inTime {
			t.Fatalf("a key on another relay's lease was claimed: %v, %v", more, err)
		}
	}
	next, err := e.Store.Claim(ctx, "next", 10, time.Minute)
	if err != nil || len(next) == 0 || next[0].ID != "1" {
		t.Fatalf("after the lease: %v, %v", next, err)
	}
	if err := errors.Join(e.Store.Done(ctx, "dead", held), e.Store.Release(ctx, "dead", held),
		e.Store.Hold(ctx, "dead", held[:1], outbox.Hold{Pause: time.Hour, StopsKey: true})); err != nil {
		t.Fatal(err)
	}
	e.pending(2)
	if more, err := e.Store.Claim(ctx, "third", 10, time.Minute); err != nil || len(more) != 0 {
		t.Fatalf("the dead relay ended another's lease: %v, %v", more, err)
	}
	if err := e.Store.Release(ctx, "next", next); err != nil {
		t.Fatal(err)
	}
	e.relay(b, outbox.RelayConfig{})
	e.until("both", func() bool { return len(b.ids("*")) == 2 })
	e.pending(0)
}

func unroutable(t *testing.T, e *env) {
	b := &broker{}
	b.say(func(messaging.Envelope) error { return fmt.Errorf("%w: x", messaging.ErrUnroutable) })
	e.commit(event("1", "a"))
	stop := e.relay(b, outbox.RelayConfig{Unroutable: outbox.UnroutableHold,
		Backoff: messaging.Constant(10 * time.Millisecond), Poll: 10 * time.Millisecond})
	e.until("three tries", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.calls >= 3 })
	e.pending(1)
	stop()
	e.relay(b, outbox.RelayConfig{Poll: 10 * time.Millisecond})
	e.pending(0)
	if got := b.ids("*"); len(got) != 0 {
		t.Fatalf("published %v", got)
	}
}

// Held events whose pauses have ended, more than a batch, and which the broker does not answer, do not delay new ones.
func newBesideHeld(t *testing.T, e *env) {
	ctx, b := t.Context(), &broker{}
	const held = 30
	for i := range held {
		e.commit(event(fmt.Sprint("held-", i), fmt.Sprint("h", i)))
	}
	claimed, err := e.Store.Claim(ctx, "other", held, time.Minute)
	if err != nil || len(claimed) != held {
		t.Fatalf("got %d entries, %v; want %d", len(claimed), err, held)
	}
	if err := e.Store.Hold(ctx, "other", claimed, outbox.Hold{StopsKey: true}); err != nil {
		t.Fatal(err)
	}
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	b.say(func(ev messaging.Envelope) error {
		if strings.HasPrefix(ev.ID, "held-") {
			return messaging.ErrNacked
		}
		return nil
	})
	e.relay(&stalling{broker: b, never: never}, outbox.RelayConfig{Batch: 10, DrainTimeout: -1,
		Poll: 20 * time.Millisecond})
	e.commit(event("new", "n"))
	e.until("the new event", func() bool { return slices.Contains(b.ids("*"), "new") })
	if got := b.ids("*"); !slices.Equal(got, []string{"new"}) {
		t.Fatalf("published %v, want only the new event", got)
	}
}

// stalling is a broker that does not answer for held events.
type stalling struct {
	*broker
	never chan struct{}
}

func (s *stalling) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	for _, e := range events {
		if strings.HasPrefix(e.ID, "held-") {
			select {
			case <-ctx.Done():
			case <-s.never:
			}
			return ctx.Err()
		}
	}
	return s.broker.PublishBatch(ctx, events)
}

// slow is a broker whose confirms take a while.
type slow struct {
	broker
	started chan struct{}
}

func (s *slow) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	close(s.started)
	time.Sleep(100 * time.Millisecond)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.broker.PublishBatch(ctx, events)
}

func drain(t *testing.T, e *env) {
	b := &slow{started: make(chan struct{})}
	e.commit(event("1", "a"))
	stop := e.relay(b, outbox.RelayConfig{})
	<-b.started
	stop()
	if got := b.ids("*"); len(got) != 1 {
		t.Fatalf("published %v", got)
	}
	e.pending(0)
}
