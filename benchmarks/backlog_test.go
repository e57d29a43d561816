package benchmarks

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

// backlogs has each database of a benchmark once.
func backlogs(b *testing.B, bench func(b *testing.B, db *sqldb.DB)) {
	b.Helper()
	for _, name := range []string{"postgresql", "sqlite"} {
		b.Run(name, func(b *testing.B) {
			dsn := "sqlite:" + filepath.Join(b.TempDir(), "bench.db")
			if name == "postgresql" {
				dsn, _ = database(b)
			}
			db, err := sqldb.Open(b.Context(), dsn, sqldb.Config{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = db.Close() })
			bench(b, db)
		})
	}
}

// fillTable runs a statement with the table g(i) of rows numbers, and waits until the database has put all of it away:
// a backlog that is measured while it is written to the disk costs what the disk costs.
func fillTable(b *testing.B, db *sqldb.DB, rows int, table, columns, values string) {
	b.Helper()
	if rows == 0 {
		return
	}
	numbers := fmt.Sprintf("generate_series(1, %d) g(i)", rows)
	after := []string{"VACUUM ANALYZE", "CHECKPOINT"}
	if db.Dialect() == sqldb.SQLite {
		numbers = fmt.Sprintf("(WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < %d) "+
			"SELECT i FROM n) g", rows)
		after = []string{"ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"}
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s", table, columns, values, numbers)
	for _, statement := range append([]string{insert}, after...) {
		if _, err := db.Querier(b.Context()).Exec(b.Context(), statement); err != nil {
			b.Fatal(statement, err)
		}
	}
}

// An operation stores 200 events, claims 200 and deletes them, beside what waits, is held or has its time to come.
func BenchmarkOutboxBacklog(b *testing.B) {
	for _, c := range []struct {
		name string
		rows int
		due  int64
	}{{"empty", 0, 0}, {"waiting-1000000", 1_000_000, 0}, {"held-100000", 100_000, 1 << 60},
		{"delayed-100000", 100_000, -(1 << 60)}} {
		b.Run(c.name, func(b *testing.B) {
			backlogs(b, func(b *testing.B, db *sqldb.DB) {
				box := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "bench"}))
				if err := box.EnsureSchema(b.Context()); err != nil {
					b.Fatal(err)
				}
				fillTable(b, db, c.rows, "sillar_outbox",
					"id, topic, source, key, content_type, occurred_at, headers, body, created_at, due_at",
					fmt.Sprint("CAST(i AS TEXT), 't', 's', 'k' || i, '', 1, '{}', '1', 1, ", c.due))
				events := make([]messaging.Envelope, 200)
				for b.Loop() {
					for i := range events {
						events[i] = messaging.Envelope{Type: "t", Key: fmt.Sprint("new", i), Body: []byte("{}")}
					}
					err := db.InTx(b.Context(), func(ctx context.Context) error { return box.PublishBatch(ctx, events) })
					if err != nil {
						b.Fatal(err)
					}
					claimed, err := box.Claim(b.Context(), "me", len(events), time.Minute)
					if err != nil || len(claimed) != len(events) {
						b.Fatal(len(claimed), err)
					}
					if err := box.Done(b.Context(), "me", claimed); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// An operation notes a message and finds it a duplicate.
func BenchmarkInboxBacklog(b *testing.B) {
	for _, rows := range []int{0, 10_000_000} {
		b.Run(fmt.Sprint("notes-", rows), func(b *testing.B) {
			backlogs(b, func(b *testing.B, db *sqldb.DB) {
				inbox := sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{}))
				if err := inbox.EnsureSchema(b.Context()); err != nil {
					b.Fatal(err)
				}
				fillTable(b, db, rows, "sillar_inbox", "consumer, id, applied_at",
					fmt.Sprint("'c', '01980000-0000-7000-8000-' || CAST(100000000000 + i AS TEXT), ", 1<<60))
				n := 0
				for b.Loop() {
					n++
					for _, want := range []bool{false, true} {
						id := fmt.Sprintf("01990000-0000-7000-8000-%012d", n)
						dup, err := inbox.Once(b.Context(), "c", id, func(context.Context) error { return nil })
						if err != nil || dup != want {
							b.Fatal(dup, err)
						}
					}
				}
			})
		})
	}
}
