package sqloutbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// A relay does not read all of an outbox that has filled up since its statements came first.
func TestPlans(t *testing.T) {
	pool, plans := testenv.PostgresPlans(t)
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	o := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "s"}))
	ctx := t.Context()
	if err := o.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	plans.Unanalysed(t, pool, "sillar_outbox")
	work := func() {
		t.Helper()
		for _, n := range []int{1, 2, 100} {
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
	if _, err := pool.Exec(ctx, `INSERT INTO sillar_outbox (id, topic, source, key, content_type, occurred_at, headers, body, created_at)
		SELECT i::text, 't', 's', 'k' || i % 1000, '', 1, '{}', '1', 1 FROM generate_series(1, $1) i`, rows); err != nil {
		t.Fatal(err)
	}
	plans.Scans(rows)
	work()
	for _, scan := range plans.Scans(rows / 2) {
		t.Error(scan)
	}
}
