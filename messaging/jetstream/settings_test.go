package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

// own starts a server of the test's own in this process.
func own(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	o.StoreDir = t.TempDir()
	s, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func receive(t *testing.T, s messaging.Stream) messaging.Delivery {
	t.Helper()
	d, err := s.Receive(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNewRefusesUnusableSettings(t *testing.T) {
	for _, url := range []string{"", "amqp://h", "nats://", "nats://h1,", "nats://h:x", "nats://secret@h/path",
		"h1:4222"} {
		if _, err := jetstream.New(url, jetstream.Config{}); !errors.Is(err, jetstream.ErrURL) ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, cfg := range []jetstream.Config{{Stream: "a.b"}, {Stream: "a b"}, {Replicas: 6}, {Replicas: -1}} {
		if _, err := jetstream.New("nats://127.0.0.1:1", cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}

// What NATS cannot express is an ErrPattern on Subscribe, which is an ErrInvalid too.
func TestSubscribeReturnsErrPattern(t *testing.T) {
	t.Parallel()
	b := open(t, shared.ClientURL(), jetstream.Config{})
	for _, patterns := range [][]string{{"#.c"}, {"a.#.c"}, {"a.*", "*.b"}, {"a..b"}, {".a"}, {"a.>"}, {">"}} {
		_, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: patterns})
		if !errors.Is(err, jetstream.ErrPattern) || !errors.Is(err, messaging.ErrInvalid) {
			t.Errorf("%q: %v", patterns, err)
		}
	}
	if err := subscribe(t, b, "g", 1, "*.b").Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"a.*"}}); !errors.Is(err,
		jetstream.ErrPattern) {
		t.Errorf("a pattern that overlaps one that the group has: %v", err)
	}
	for _, topic := range []string{"a..b", ".a", "a.", "a.>"} {
		if err := b.Publish(t.Context(), topic, 1); !errors.Is(err, messaging.ErrInvalid) {
			t.Errorf("topic %q: %v", topic, err)
		}
	}
}

// An event that is published again under its id is stored once; another source's or topic's with that id is another
// one.
func TestDuplicatesAreStoredOnce(t *testing.T) {
	t.Parallel()
	b := open(t, shared.ClientURL(), jetstream.Config{})
	s := subscribe(t, b, "g", 10, "#")
	for _, e := range []messaging.Envelope{{Type: "t", ID: "1"}, {Type: "t", ID: "1"},
		{Type: "t", ID: "1", Source: "other"}, {Type: "u", ID: "1"}, {Type: "t", ID: "1"}, {Type: "end"}} {
		e.Body = []byte("{}")
		if err := b.PublishBatch(t.Context(), []messaging.Envelope{e}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"t test", "t other", "u test", "end test"} {
		d := receive(t, s)
		if got := d.Envelope().Type + " " + d.Envelope().Source; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A handler may run longer than AckWait: its message does not come again meanwhile.
func TestSlowHandlerKeepsItsMessage(t *testing.T) {
	t.Parallel()
	b := open(t, shared.ClientURL(), jetstream.Config{AckWait: 300 * time.Millisecond})
	slow := subscribe(t, b, "g", 1, "t")
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	d := receive(t, slow)
	other := subscribe(t, b, "g", 1, "t")
	if d, err := other.Receive(within(t, 2*time.Second)); err == nil {
		t.Fatalf("it came again while it was handled, attempt %d", d.Attempt())
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(slow.Close(), other.Close()); err != nil {
		t.Error(err)
	}
}

// A message that is delivered again and again without being settled becomes a dead letter.
func TestDeliveryLimit(t *testing.T) {
	t.Parallel()
	b := open(t, shared.ClientURL(), jetstream.Config{DeliveryLimit: 3})
	s := subscribe(t, b, "g", 1, "t")
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := receive(t, s).Requeue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var dead []messaging.DeadLetter
	for end := time.Now().Add(patience); len(dead) == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var err error
		if dead, err = b.DeadLetters(t.Context(), "g", 1); err != nil {
			t.Fatal(err)
		}
	}
	if len(dead) != 1 || !strings.Contains(dead[0].Reason, "delivery_limit") {
		t.Errorf("dead letters: %+v", dead)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A body above the server's limit is an ErrInvalid; a stream that is full keeps Publish waiting, and no longer than its
// context.
func TestPublishThatIsRefused(t *testing.T) {
	t.Parallel()
	name := unique()
	b := open(t, shared.ClientURL(), jetstream.Config{Stream: name, Reconnect: messaging.Constant(10 * time.Millisecond)})
	if err := b.Publish(t.Context(), "t", make([]byte, 2<<20)); !errors.Is(err, messaging.ErrInvalid) {
		t.Errorf("a body of 2 MiB: %v", err)
	}
	s := subscribe(t, b, "g", 1, "t")
	js, err := natsjs.New(dial(t, shared.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	full, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := full.CachedInfo().Config
	cfg.MaxMsgs, cfg.Discard = 1, natsjs.DiscardNew
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "t", 1); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(within(t, time.Second), "t", 2); !errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("a full stream: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Publish(t.Context(), "t", 3) }()
	consumed, stop := context.WithCancel(t.Context())
	var consuming sync.WaitGroup
	consuming.Go(func() { // also what was on its way when its publisher gave up
		for {
			d, err := s.Receive(consumed)
			if err != nil {
				return
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	if err := <-done; err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	stop()
	consuming.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// The largest message that can be published can be retried, can be a dead letter with a long reason, and can be
// redriven.
func TestLargestMessage(t *testing.T) {
	t.Parallel()
	b := open(t, shared.ClientURL(), jetstream.Config{})
	s := subscribe(t, b, "g", 1, "t")
	size, refused := 1<<20, 0
	for ; ; size -= 256 {
		err := b.Publish(t.Context(), "t", make([]byte, size))
		if err == nil {
			break
		}
		if refused++; !errors.Is(err, messaging.ErrInvalid) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if err := receive(t, s).Retry(t.Context(), 0, errors.New("later")); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, s).DeadLetter(t.Context(), errors.New(strings.Repeat("ñ", 4<<10))); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Redrive(t.Context(), "g", 10); n != 1 || err != nil {
		t.Fatalf("redrive: %d, %v", n, err)
	}
	if d := receive(t, s); len(d.Envelope().Body) != size || d.Attempt() != 1 || d.Ack(t.Context()) != nil {
		t.Errorf("%d bytes come, want %d", len(d.Envelope().Body), size)
	}
	if err := s.Close(); err != nil || refused == 0 {
		t.Errorf("close: %v; %d sizes were refused", err, refused)
	}
}

// A server that is down at first is waited for, and no longer than the context.
func TestDownAtStart(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	b := open(t, "nats://127.0.0.1:"+port, jetstream.Config{Reconnect: messaging.Constant(10 * time.Millisecond)})
	for what, err := range map[string]error{"publish": b.Publish(within(t, 50*time.Millisecond), "t", 1),
		"health": b.Health(within(t, 50*time.Millisecond))} {
		if !errors.Is(err, messaging.ErrBlocked) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- b.Publish(t.Context(), "t", 1) }()
	o := &server.Options{}
	if _, err := fmt.Sscan(port, &o.Port); err != nil {
		t.Fatal(err)
	}
	own(t, o)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
