package sqlevents

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Appends that share a statement do not read all streams, whatever was planned when there were few: not analysed, and
// analysed, when PostgreSQL knows that reading all of them is best.
func TestGroupedAppendsDoNotReadAllStreams(t *testing.T) {
	for _, analysed := range []bool{false, true} {
		t.Run(fmt.Sprintf("analysed %v", analysed), func(t *testing.T) {
			pool, plans := testenv.PostgresPlans(t)
			s := Must(New(sqldb.Must(sqldb.FromPool(pool, sqldb.Config{})), Config{Coalesce: -1}))
			ctx := t.Context()
			if err := s.EnsureSchema(ctx); err != nil {
				t.Fatal(err)
			}
			plans.Unanalysed(t, pool, "sillar_streams", "sillar_events")
			const streams = 64
			name := func(i int) string { return fmt.Sprint("s-", i) }
			for i := range streams {
				if _, err := s.Append(ctx, name(i), eventstore.NoStream, eventstore.Event{Type: "x"}); err != nil {
					t.Fatal(err)
				}
			}
			if analysed {
				if _, err := pool.Exec(ctx, "ANALYZE"); err != nil {
					t.Fatal(err)
				}
			}
			version := int64(0)
			work := func() {
				t.Helper()
				for range 8 {
					version++
					var list []*appending
					for i := range streams {
						list = append(list, &appending{name(i), version, []eventstore.Recorded{{Stream: name(i), Time: time.Now(),
							Event: eventstore.Event{ID: fmt.Sprintf("%d-%d", version, i), Type: "x", Data: []byte("1")}}}})
					}
					if err := errors.Join(s.appendAll(ctx, list)...); err != nil {
						t.Fatal(err)
					}
				}
			}
			work()
			const rows = 20_000
			if _, err := pool.Exec(ctx,
				`INSERT INTO sillar_streams SELECT 'old-' || i, version, last_xid FROM sillar_streams, generate_series(1, $1) i
				WHERE stream = 's-0'`, rows); err != nil {
				t.Fatal(err)
			}
			work() // as often as before: now it is planned anew
			plans.Scans(rows)
			work()
			for _, scan := range plans.Scans(rows) {
				t.Error(scan)
			}
		})
	}
}
