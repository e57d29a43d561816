package messagingtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

// publishAll publishes 0 to n-1, each until it succeeds, and returns how often Publish failed.
func publishAll(t *testing.T, b messaging.Broker, n int) (failed int) {
	t.Helper()
	for i := range n {
		for {
			err := b.Publish(t.Context(), "a", i, messaging.WithID(fmt.Sprint(i)))
			if err == nil {
				break
			}
			if !errors.Is(err, messagingtest.ErrInjected) {
				t.Fatal(err)
			}
			failed++
		}
	}
	return failed
}

// receiveAll acknowledges what a stream delivers until nothing comes for a minute, and returns it in its order.
func receiveAll(t *testing.T, s messaging.Stream) (got []string) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		d, err := s.Receive(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Envelope().ID)
		if err := d.Ack(t.Context()); err != nil && !errors.Is(err, messagingtest.ErrInjected) {
			t.Fatal(err)
		}
	}
}

func faultyStream(t *testing.T, seed uint64, sub messaging.Subscription) (messaging.Broker, messaging.Stream) {
	t.Helper()
	inner := memory.Must(memory.New(memory.Config{Source: "test"}))
	t.Cleanup(func() { _ = inner.Close() })
	b := messagingtest.Faulty(inner, seed, 0.3)
	sub.Group, sub.Patterns, sub.Prefetch = "g", []string{"a"}, 20
	s, err := b.Subscribe(t.Context(), sub)
	if err != nil {
		t.Fatal(err)
	}
	return b, s
}

func TestFaultyDuplicatesAndReordersAndLosesNothing(t *testing.T) {
	var runs [2][]string
	for run := range runs {
		synctest.Test(t, func(t *testing.T) {
			b, s := faultyStream(t, 3, messaging.Subscription{})
			const n = 200
			if failed := publishAll(t, b, n); failed < 30 {
				t.Errorf("Publish failed %d times of %d at a rate of 0.3", failed, n)
			}
			got := receiveAll(t, s)
			runs[run] = got
			if distinct := slices.Compact(slices.Sorted(slices.Values(got))); len(distinct) != n {
				t.Errorf("%d of %d messages were delivered", len(distinct), n)
			}
			if len(got) < n+30 {
				t.Errorf("%d deliveries of %d messages: hardly a duplicate", len(got), n)
			}
			late, highest := 0, -1
			for _, id := range got {
				var i int
				_, _ = fmt.Sscan(id, &i)
				if i < highest {
					late++
				}
				highest = max(highest, i)
			}
			if late < 30 {
				t.Errorf("%d of %d deliveries were overtaken", late, len(got))
			}
		})
	}
	if !slices.Equal(runs[0], runs[1]) {
		t.Errorf("two runs of one seed differ:\n%v\n%v", runs[0], runs[1])
	}
}

func TestFaultyKeepsTheOrderThatSingleActivePromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := memory.Must(memory.New(memory.Config{Source: "test"}))
		defer inner.Close()
		b := messagingtest.Faulty(inner, 3, 0.3)
		s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"a"}, Prefetch: 100,
			SingleActive: true})
		if err != nil {
			t.Fatal(err)
		}
		publishAll(t, inner, 100)
		start := time.Now()
		for want := range 100 {
			d, err := s.Receive(t.Context())
			if err != nil || d.Envelope().ID != fmt.Sprint(want) {
				t.Fatalf("got %v, %v, want %d", d, err, want)
			}
		}
		if took := time.Since(start); took < 5*time.Second {
			t.Errorf("100 deliveries took %s: none was late", took)
		}
	})
}

// Stop gives back what is late, for the next stream of the group.
func TestFaultyStopGivesBackWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := faultyStream(t, 1, messaging.Subscription{})
		publishAll(t, b, 50)
		got := map[string]bool{}
		for range 10 {
			d, err := s.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got[d.Envelope().ID] = true
			_ = d.Ack(t.Context())
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Receive(t.Context()); !errors.Is(err, messaging.ErrClosed) {
			t.Errorf("Receive after Stop: got %v, want ErrClosed", err)
		}
		next, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"a"}, Prefetch: 20})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range receiveAll(t, next) {
			got[id] = true
		}
		if len(got) != 50 {
			t.Errorf("%d of 50 messages were delivered", len(got))
		}
	})
}

func TestFaultyBatchSaysWhatBecameOfEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := memory.Must(memory.New(memory.Config{Source: "test"}))
		defer inner.Close()
		b := messagingtest.Faulty(inner, 5, 0.4)
		s, err := b.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"#"}, Prefetch: 1000})
		if err != nil {
			t.Fatal(err)
		}
		var events []messaging.Envelope
		for i := range 200 {
			e, err := messaging.NewEnvelope("a", i, messaging.WithID(fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
		unroutable, err := messaging.NewEnvelope("a", 1)
		if err != nil {
			t.Fatal(err)
		}
		unroutable.Type = "" // the broker itself refuses it
		events = append(events, unroutable)
		var each *messaging.BatchError
		if err := b.PublishBatch(t.Context(), events); !errors.As(err, &each) || len(each.Errors) != len(events) {
			t.Fatalf("got %v, want a BatchError of %d", err, len(events))
		}
		if err := each.Errors[200]; err == nil {
			t.Error("an event without a topic was published")
		}
		published := map[string]bool{}
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			d, err := s.Receive(ctx)
			cancel()
			if err != nil {
				break
			}
			published[d.Envelope().ID] = true
		}
		before, after := 0, 0
		for i, err := range each.Errors[:200] {
			switch ok := published[fmt.Sprint(i)]; {
			case err == nil && !ok:
				t.Errorf("event %d was not published, and has no error", i)
			case err != nil && ok:
				after++
			case err != nil:
				before++
			}
		}
		if before < 20 || after < 20 {
			t.Errorf("%d failed before and %d after they were published, of 200 at a rate of 0.4", before, after)
		}
	})
}

// A publisher that tries again until it has an answer publishes some events twice, as the relay of an outbox does.
func ExampleFaulty() {
	ctx := context.Background()
	inner := memory.Must(memory.New(memory.Config{Source: "orders"}))
	defer inner.Close()
	s, err := inner.Subscribe(ctx, messaging.Subscription{Group: "mails", Patterns: []string{"orders.*"}, Prefetch: 100})
	if err != nil {
		fmt.Println(err)
		return
	}
	broker := messagingtest.Faulty(inner, 42, 0.5)
	attempts := 0
	for order := range 20 {
		for err := messagingtest.ErrInjected; err != nil; attempts++ {
			err = broker.Publish(ctx, "orders.created", order, messaging.WithID(fmt.Sprint(order)))
		}
	}
	received := 0
	for last := ""; last != "19"; received++ {
		d, err := s.Receive(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		last = d.Envelope().ID
	}
	fmt.Println("attempts:", attempts > 20, "duplicates:", received > 20, "lost attempts:", attempts > received)
	// Output: attempts: true duplicates: true lost attempts: true
}
