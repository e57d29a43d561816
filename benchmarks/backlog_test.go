package benchmarks

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/inbox/sqlinbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// backlog returns an empty database and fills a table of it with rows by a statement of two parameters: how many, and
// since when they are due.
func backlog(b *testing.B) (db *sqldb.DB, fill func(statement string, rows int, due int64)) {
	b.Helper()
	dsn, _ := database(b)
	pool, err := pgxpool.New(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	fill = func(statement string, rows int, due int64) {
		b.Helper()
		if rows == 0 {
			return
		}
		if _, err := pool.Exec(b.Context(), statement, rows, due); err != nil {
			b.Fatal(err)
		}
		if _, err := pool.Exec(b.Context(), "VACUUM ANALYZE"); err != nil {
			b.Fatal(err)
		}
	}
	return sqldb.Must(sqldb.FromPool(pool, sqldb.Config{})), fill
}

// An operation stores 200 events, claims 200 and deletes them, beside what waits or is held.
func BenchmarkOutboxBacklog(b *testing.B) {
	for _, c := range []struct {
		name          string
		waiting, held int
	}{{"empty", 0, 0}, {"waiting-1000000", 1_000_000, 0}, {"held-100000", 0, 100_000}} {
		b.Run(c.name, func(b *testing.B) {
			db, fill := backlog(b)
			box := sqloutbox.Must(sqloutbox.New(db, sqloutbox.Config{Source: "bench"}))
			if err := box.EnsureSchema(b.Context()); err != nil {
				b.Fatal(err)
			}
			const insert = `INSERT INTO sillar_outbox (id, topic, source, key, content_type, occurred_at, headers, body,
				created_at, due_at)
				SELECT i::text, 't', 's', 'k' || i, '', 1, '{}', '1', 1, $2 FROM generate_series(1, $1) i`
			fill(insert, c.waiting, 0)
			fill(insert, c.held, 1<<60)
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
	}
}

// An operation notes a message and finds it a duplicate.
func BenchmarkInboxBacklog(b *testing.B) {
	for _, rows := range []int{0, 10_000_000} {
		b.Run(fmt.Sprint("notes-", rows), func(b *testing.B) {
			db, fill := backlog(b)
			inbox := sqlinbox.Must(sqlinbox.New(db, sqlinbox.Config{}))
			if err := inbox.EnsureSchema(b.Context()); err != nil {
				b.Fatal(err)
			}
			fill(`INSERT INTO sillar_inbox (consumer, id, applied_at) SELECT 'c', lpad(i::text, 36, '0'), $2
				FROM generate_series(1, $1) i`, rows, 1<<60)
			n := 0
			for b.Loop() {
				n++
				for _, want := range []bool{false, true} {
					dup, err := inbox.Once(b.Context(), "c", fmt.Sprint("new-", n), func(context.Context) error { return nil })
					if err != nil || dup != want {
						b.Fatal(dup, err)
					}
				}
			}
		})
	}
}
