package sqloutbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// A claim does not take longer the more events of one key wait: else an outage of the broker leaves an outbox that no
// relay gets through within its lease. The bound is a hundred times what a claim takes, and a quarter of what it takes
// when each event looks at all others of its key.
func TestOneKeyWithManyEvents(t *testing.T) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{Synchronous: "NORMAL"}))
			defer db.Close()
			o := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{}))
			if err := o.EnsureSchema(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := db.InTx(t.Context(), func(ctx context.Context) error { // a statement by itself has 5 s on SQLite
				_, err := db.Querier(ctx).Exec(ctx,
					`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
					INSERT INTO sillar_outbox (id, topic, source, key, content_type, occurred_at, headers, body, created_at)
					SELECT CAST(i AS TEXT), 't', 's', 'k', '', 1, '{}', '1', 1 FROM n`)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			claim := func(ctx context.Context, owner string, n int, first string) []outbox.Entry {
				t.Helper()
				got, err := o.Claim(ctx, owner, 200, time.Minute)
				if err != nil || len(got) != n || n > 0 && got[0].ID != first {
					t.Fatalf("%s claimed %d, want %d from %s on: %v", owner, len(got), n, first, err)
				}
				return got
			}
			bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			got := claim(bounded, "me", 200, "1")
			claim(ctx, "another", 0, "") // of the key I have
			if err := o.Done(ctx, "me", got[:100]); err != nil {
				t.Fatal(err)
			}
			if err := o.Release(ctx, "me", got[101:]); err != nil {
				t.Fatal(err)
			}
			if err := o.Hold(ctx, "me", got[100:101], outbox.Hold{Pause: time.Hour, StopsKey: true}); err != nil {
				t.Fatal(err)
			}
			claim(ctx, "another", 0, "") // of what waits behind the one that is held back
		})
	}
}
