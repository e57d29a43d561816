package sqloutbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Operators see held events, let their keys go on, try them at once, and drop them.
func TestHeldEventsAreListedSkippedRetriedAndDropped(t *testing.T) {
	pool, _ := testenv.PostgresPlans(t)
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	o := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "s"}))
	ctx := t.Context()
	if err := o.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	publish := func(topic string) {
		t.Helper()
		err := db.InTx(ctx, func(ctx context.Context) error { return o.Publish(ctx, topic, 1, messaging.WithKey("k")) })
		if err != nil {
			t.Fatal(err)
		}
	}
	publish("first")
	first, err := o.Claim(ctx, "me", 10, time.Minute)
	if err != nil || len(first) != 1 {
		t.Fatalf("claimed %v, %v", first, err)
	}
	if err := o.Hold(ctx, "me", first, outbox.Hold{Pause: time.Hour, StopsKey: true}); err != nil {
		t.Fatal(err)
	}
	publish("second")
	claim := func(want int, held bool) {
		t.Helper()
		f := o.Claim
		if held {
			f = o.ClaimHeld
		}
		got, err := f(ctx, "me", 10, time.Minute)
		if err != nil || len(got) != want {
			t.Fatalf("claimed %d, %v; want %d", len(got), err, want)
		}
		if err := o.Release(ctx, "me", got); err != nil {
			t.Fatal(err)
		}
	}
	claim(0, false)
	held, err := o.ListHeld(ctx, 10)
	if err != nil || len(held) != 1 || held[0].Type != "first" || !held[0].StopsKey || held[0].Attempts != 1 ||
		time.Until(held[0].Until) < 50*time.Minute {
		t.Fatalf("held: %+v, %v", held, err)
	}
	if n, err := o.SkipHeld(ctx, held[0].Ref); n != 1 || err != nil {
		t.Fatalf("skipped %d, %v", n, err)
	}
	claim(1, false)
	claim(0, true)
	if n, err := o.RetryHeld(ctx); n != 1 || err != nil {
		t.Fatalf("retried %d, %v", n, err)
	}
	claim(1, true)
	if n, err := o.DropHeld(ctx, held[0].Ref); n != 1 || err != nil {
		t.Fatalf("dropped %d, %v", n, err)
	}
	if n, _, err := o.Pending(ctx); n != 1 || err != nil {
		t.Fatalf("%d pending, %v; want 1", n, err)
	}
}
