package sqlinbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// No statement reads all notes: neither for a message that is new, nor for a duplicate, nor to remove old ones, also
// when it was planned while the table was empty.
func TestPlansReadNoMoreThanTheyReturn(t *testing.T) {
	pool, plans := testenv.PostgresPlans(t)
	i := sqlinbox.Must(sqlinbox.New(sqldb.Must(sqldb.FromPool(pool, sqldb.Config{})), sqlinbox.Config{Keep: time.Hour}))
	ctx := t.Context()
	if err := i.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	plans.Unanalysed(t, pool, "sillar_inbox")
	round := 0
	work := func() {
		t.Helper()
		round++
		for _, want := range []bool{false, true} {
			dup, err := i.Once(ctx, "c", fmt.Sprint("m", round), func(context.Context) error { return nil })
			if dup != want || err != nil {
				t.Fatalf("duplicate %v, %v; want %v", dup, err, want)
			}
		}
		if _, err := pool.Exec(ctx, `INSERT INTO sillar_inbox (consumer, id, applied_at) VALUES ('c', $1, 1)`,
			fmt.Sprint("old", round)); err != nil {
			t.Fatal(err)
		}
		if n, err := i.Purge(ctx); n != 1 || err != nil {
			t.Fatalf("purged %d, %v; want 1", n, err)
		}
	}
	work()
	const rows = 50_000
	if _, err := pool.Exec(ctx, `INSERT INTO sillar_inbox (consumer, id, applied_at) SELECT 'c', i::text, $2
		FROM generate_series(1, $1) i`, rows, int64(1)<<60); err != nil {
		t.Fatal(err)
	}
	work()
	plans.Scans(rows)
	work()
	for _, scan := range plans.Scans(1000) {
		t.Error(scan)
	}
}
