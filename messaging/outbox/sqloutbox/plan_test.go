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
func TestPlans(t *testing.T) {
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
	const fill = `INSERT INTO sillar_outbox (id, topic, source, key, content_type, occurred_at, headers, body, created_at, due_at)
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
