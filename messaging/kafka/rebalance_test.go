package kafka_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

// publish sends n messages of different keys.
func publish(t *testing.T, b messaging.Broker, n int) {
	t.Helper()
	var events []messaging.Envelope
	for i := range n {
		events = append(events, messaging.Envelope{Type: "t", ID: fmt.Sprint(i), Key: fmt.Sprint(i), Body: []byte("1")})
	}
	if err := b.PublishBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

// rest acknowledges what comes within a time, and counts it by id.
func rest(t *testing.T, s messaging.Stream, d time.Duration, got map[string]int) {
	t.Helper()
	for ctx := within(t, d); ; {
		d, err := s.Receive(ctx)
		if err != nil {
			return
		}
		got[d.Envelope().ID]++
		if err := d.Ack(t.Context()); err != nil {
			t.Errorf("%s: %v", d.Envelope().ID, err)
		}
	}
}

// A partition that moves waits for the messages that are being handled: they are settled where they are, and do not
// come to the new process.
func TestPartitionsWaitForHandlers(t *testing.T) {
	t.Parallel()
	cfg := kafka.Config{Prefix: unique()}
	one, two := open(t, url, cfg), open(t, url, cfg)
	first := subscribe(t, one, "g", 50, "t")
	publish(t, one, 50)
	var held []messaging.Delivery
	for range 50 {
		held = append(held, receive(t, first))
	}
	second := subscribe(t, two, "g", 50, "t")
	got := map[string]int{}
	rest(t, second, time.Second, got)
	if len(got) > 0 {
		t.Errorf("%d messages come to the second process while the first one handles them", len(got))
	}
	for _, d := range held {
		if err := d.Ack(t.Context()); err != nil {
			t.Errorf("%s: %v", d.Envelope().ID, err)
		}
	}
	for i := range 50 { // of the partitions that have moved
		if err := one.Publish(t.Context(), "t", 1, messaging.WithKey(fmt.Sprint(i)), messaging.WithID("later")); err != nil {
			t.Fatal(err)
		}
	}
	if id := receive(t, second).Envelope().ID; id != "later" {
		t.Errorf("the second process gets %s, which the first one has settled", id)
	}
}

// A handler that runs longer than RevokeWait does not keep its partition: its message comes to the new process, and
// cannot be settled by the old one.
func TestPartitionsDoNotWaitForEver(t *testing.T) {
	t.Parallel()
	cfg := kafka.Config{Prefix: unique(), RevokeWait: 50 * time.Millisecond}
	one, two := open(t, url, cfg), open(t, url, cfg)
	first := subscribe(t, one, "g", 50, "t")
	publish(t, one, 50)
	held := map[string]messaging.Delivery{}
	for range 50 {
		d := receive(t, first)
		held[d.Envelope().ID] = d
	}
	second := subscribe(t, two, "g", 50, "t")
	again := receive(t, second).Envelope().ID
	if err := held[again].Ack(t.Context()); !errors.Is(err, messaging.ErrClosed) {
		t.Errorf("settling %s, which is another process's: got %v, want ErrClosed", again, err)
	}
}

// More retries than a process holds come nevertheless, each once.
func TestManyRetriesWait(t *testing.T) {
	t.Parallel()
	const n = 2500
	b := open(t, url, kafka.Config{})
	s := subscribe(t, b, "g", 200, "t")
	publish(t, b, n)
	errs := make(chan error, n)
	for range n {
		d := receive(t, s)
		if d.Attempt() != 1 { // the first ones are due
			if err := d.Requeue(t.Context()); err != nil {
				t.Fatal(err)
			}
			errs <- nil
			continue
		}
		go func() { errs <- d.Retry(t.Context(), 3*time.Second, errors.New("boom")) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int{}
	for end := time.Now().Add(patience); len(got) < n && time.Now().Before(end); {
		rest(t, s, 100*time.Millisecond, got)
	}
	for id, times := range got {
		if times != 1 {
			t.Errorf("%s comes %d times", id, times)
		}
	}
	if len(got) != n {
		t.Errorf("%d of %d retries come", len(got), n)
	}
}

// A message that is not settled holds up none behind it, and what was settled behind it does not come again after a
// restart.
func TestSlowMessageHoldsUpNone(t *testing.T) {
	t.Parallel()
	b := open(t, url, kafka.Config{Partitions: 1})
	s := subscribe(t, b, "g", 10, "t")
	publish(t, b, 500)
	slow := receive(t, s)
	got := map[string]int{}
	for end := time.Now().Add(patience); len(got) < 499 && time.Now().Before(end); {
		rest(t, s, 100*time.Millisecond, got)
	}
	if len(got) != 499 {
		t.Fatalf("%d messages come beside the slow one, want 499", len(got))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = subscribe(t, b, "g", 10, "t")
	again := map[string]int{}
	rest(t, s, time.Second, again)
	if len(again) != 1 || again[slow.Envelope().ID] != 1 {
		t.Errorf("after a restart %v come, want %s alone", again, slow.Envelope().ID)
	}
}

// A publish that got no answer in time has an unknown outcome; the record is stored once all the same.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	url, p := proxied(t)
	b := open(t, url, kafka.Config{})
	s := subscribe(t, b, "g", 10, "t")
	if err := b.Publish(t.Context(), "t", 1, messaging.WithID("before")); err != nil {
		t.Fatal(err)
	}
	p.Pause()
	begin := time.Now()
	err := b.Publish(within(t, 300*time.Millisecond), "t", 1, messaging.WithID("in doubt"))
	if !errors.Is(err, messaging.ErrUnknownOutcome) {
		t.Errorf("got %v, want ErrUnknownOutcome", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("Publish took %v", took)
	}
	p.Cut()
	p.Resume()
	got := map[string]int{}
	for end := time.Now().Add(patience); got["in doubt"] == 0 && time.Now().Before(end); {
		rest(t, s, 200*time.Millisecond, got)
	}
	if got["in doubt"] != 1 || got["before"] != 1 {
		t.Errorf("got %v, want each once", got)
	}
}
