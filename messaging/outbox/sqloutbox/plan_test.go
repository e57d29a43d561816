package sqloutbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// A relay does not read all of an outbox that has filled up since its statements came first, or since it was analysed,
// nor, for each event, all of its key.
func TestPlansReadNoMoreThanTheyReturn(t *testing.T) {
	for _, analysed := range []bool{false, true} {
		for _, keys := range []int{1, 1000} {
			t.Run(fmt.Sprintf("analysed %v, keys %d", analysed, keys), func(t *testing.T) { plansOf(t, analysed, keys) })
		}
	}
}

func plansOf(t *testing.T, analysed bool, keys int) {
	t.Helper()
	pool, plans := testenv.PostgresPlans(t)
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	o := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "s"}))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a bad plan takes minutes
	defer cancel()
	if err := o.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	plans.Unanalysed(t, pool, "sillar_outbox")
	const fill = `INSERT INTO sillar_outbox (id, topic, source, key, content_type, occurred_at, headers, body,
		created_at, due_at)
		SELECT i::text, 't', 's', $3 || i % $4, '', 1, '{}', '1', 1, $2 FROM generate_series(1, $1) i`
	if analysed {
		_, err1 := pool.Exec(ctx, fill, 3, int64(1)<<60, "later", 3)
		_, err2 := pool.Exec(ctx, "ANALYZE sillar_outbox")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	work := func() {
		t.Helper()
		for _, n := range []int{1, 2, 50} {
			err := db.InTx(ctx, func(ctx context.Context) error {
				for i := range n {
					if err := o.Publish(ctx, "t", i, messaging.WithKey(fmt.Sprint("k", i))); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, settle := range []func(context.Context, string, []outbox.Entry) error{o.Release, o.Done} {
				got, err := o.Claim(ctx, "me", n, time.Minute)
				if err != nil || len(got) != n {
					t.Fatalf("%d of %d claimed, %v", len(got), n, err)
				}
				if err := settle(ctx, "me", got); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	work()
	const rows = 20_000
	if _, err := pool.Exec(ctx, fill, rows, 0, "k", keys); err != nil {
		t.Fatal(err)
	}
	plans.Scans(rows)
	work()
	for _, scan := range plans.Scans(rows / 2) {
		t.Error(scan)
	}
}

// Neither the relay nor an operator reads all of what is held to get at some of it, nor what is held to get at what is
// new.
func TestPlansBesideHeldEvents(t *testing.T) {
	pool, plans := testenv.PostgresPlans(t)
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	o := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "s"}))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := o.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	plans.Unanalysed(t, pool, "sillar_outbox")
	work := func() {
		t.Helper()
		for _, h := range []outbox.Hold{{StopsKey: true}, {StopsKey: true, Uncounted: true}, {}} {
			err := db.InTx(ctx, func(ctx context.Context) error { return o.Publish(ctx, "t", 1, messaging.WithKey("new")) })
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.Claim(ctx, "me", 200, time.Minute)
			if err != nil || len(got) != 1 {
				t.Fatalf("claimed %d, %v; want the new event", len(got), err)
			}
			if err := o.Hold(ctx, "me", got, h); err != nil {
				t.Fatal(err)
			}
			if got, err = o.ClaimHeld(ctx, "me", 200, time.Minute); err != nil || len(got) != 1 {
				t.Fatalf("claimed %d held, %v; want 1", len(got), err)
			}
			h.Pause = time.Minute
			if err := o.Hold(ctx, "me", got, h); err != nil {
				t.Fatal(err)
			}
			held, err := o.ListHeld(ctx, 5)
			if err != nil || len(held) == 0 {
				t.Fatalf("held: %v, %v", held, err)
			}
			for _, change := range []func(context.Context, ...string) (int64, error){o.SkipHeld, o.RetryHeld, o.DropHeld} {
				if n, err := change(ctx, held[0].Ref); n != 1 || err != nil {
					t.Fatalf("changed %d, %v; want 1", n, err)
				}
			}
		}
	}
	work()
	const rows = 20_000
	for _, due := range []int64{1 << 60, -1 << 60} { // half of them stop their keys
		if _, err := pool.Exec(ctx,
			`INSERT INTO sillar_outbox (id, topic, source, key, content_type, occurred_at, headers, body, created_at, due_at)
			SELECT i::text, 't', 's', 'k' || i % 1000, '', 1, '{}', '1', 1, $2 FROM generate_series(1,
			$1) i`, rows, due); err != nil {
			t.Fatal(err)
		}
	}
	work() // as often as before: now all is planned anew
	plans.Scans(rows)
	work()
	for _, scan := range plans.Scans(1000) {
		t.Error(scan)
	}
}
