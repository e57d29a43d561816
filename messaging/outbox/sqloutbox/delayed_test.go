package sqloutbox_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/memory"
	"github.com/sillar-go/sillar/messaging/outbox"
)

// An event with a time of delivery is published then and not before, without stopping its key, and the broker does not
// see the time. Until then it is listed for operators, who can drop it; it does not count as a lag, and is not retried
// with those that have failed.
func TestEventsAreHeldUntilTheirTime(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, o := open(t, dsn(t))
			ctx := t.Context()
			publish := func(id string, opts ...messaging.Option) {
				t.Helper()
				opts = append(opts, messaging.WithID(id), messaging.WithKey("k"))
				if err := db.InTx(ctx, func(ctx context.Context) error { return o.Publish(ctx, "t", 1, opts...) }); err != nil {
					t.Fatal(err)
				}
			}
			claim := func(f func(context.Context, string, int, time.Duration) ([]outbox.Entry, error)) (ids []string) {
				t.Helper()
				got, err := f(ctx, "me", 10, time.Minute)
				for _, e := range got {
					ids = append(ids, e.ID)
				}
				if err := errors.Join(err, o.Done(ctx, "me", got)); err != nil {
					t.Fatal(err)
				}
				return ids
			}
			publish("tomorrow", messaging.WithDelay(24*time.Hour))
			if n, oldest, err := o.Pending(ctx); n != 1 || !oldest.IsZero() || err != nil {
				t.Errorf("pending: %d, oldest %v, %v; want 1 and none", n, oldest, err)
			}
			publish("past", messaging.WithDeliverAt(time.Now().Add(-time.Hour)))
			publish("soon", messaging.WithDelay(300*time.Millisecond))
			begin := time.Now()
			publish("now")
			if got := claim(o.Claim); !slices.Equal(got, []string{"past", "now"}) {
				t.Fatalf("claimed %v, want what is not held back", got)
			}
			if n, err := o.RetryHeld(ctx); n != 0 || err != nil {
				t.Errorf("RetryHeld of all: %d, %v; want none", n, err)
			}
			held, err := o.ListHeld(ctx, 10)
			if err != nil || len(held) != 2 || held[1].ID != "tomorrow" || held[1].Attempts != 0 || held[1].StopsKey ||
				time.Until(held[1].Until) < 23*time.Hour {
				t.Fatalf("held %+v, %v", held, err)
			}
			var got []string
			for len(got) == 0 && time.Since(begin) < 10*time.Second {
				got = claim(o.ClaimHeld)
			}
			if waited := time.Since(begin); !slices.Equal(got, []string{"soon"}) || waited < 200*time.Millisecond {
				t.Fatalf("claimed %v after %v", got, waited)
			}
			if n, err := o.DropHeld(ctx, held[1].Ref); n != 1 || err != nil {
				t.Fatalf("DropHeld: %d, %v", n, err)
			}

			b := memory.Must(memory.New(memory.Config{}))
			defer b.Close()
			s, err := b.Subscribe(ctx, messaging.Subscription{Group: "g", Patterns: []string{"t"}, Prefetch: 1})
			if err != nil {
				t.Fatal(err)
			}
			relayed, stop := context.WithCancel(ctx)
			done := make(chan error, 1)
			relay := outbox.Must(outbox.NewRelay(o, b, outbox.RelayConfig{Poll: 20 * time.Millisecond}))
			go func() { done <- relay.Run(relayed) }()
			publish("relayed", messaging.WithDelay(100*time.Millisecond))
			d, err := s.Receive(ctx)
			if err != nil || d.Envelope().ID != "relayed" {
				t.Fatalf("received %v, %v", d, err)
			}
			stop()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}
