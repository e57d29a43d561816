package benchmarks

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
)

const (
	eventWriters = 16
	poll         = time.Millisecond
)

var eventData = json.RawMessage(`{"order_id":"018f7f3c-0000-7000-8000-000000000000","cents":1990,"currency":"EUR"}`)

// follower counts what a reader that polls beside the writers makes of what they append.
type follower struct {
	seen, disorder int64
	last           map[string]int64
}

func (f *follower) take(stream string, version int64) {
	f.seen++
	if version != f.last[stream]+1 {
		f.disorder++
	}
	f.last[stream] = max(version, f.last[stream])
}

// log is an event log under test. append adds an event to a stream after a version; read hands on what is new, once.
type eventLog struct {
	append func(ctx context.Context, stream string, version int64) error
	read   func(ctx context.Context, take func(stream string, version int64)) error
}

// naiveLog is a table with a serial column, read by the last number seen: what is often written by hand.
func naiveLog(b *testing.B, dsn string) eventLog {
	b.Helper()
	ctx := context.Background()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		b.Fatal(err)
	}
	cfg.MaxConns = 2 * eventWriters
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if _, err := pool.Exec(ctx,
		`CREATE TABLE events (position BIGSERIAL PRIMARY KEY, stream TEXT NOT NULL, version BIGINT NOT NULL,
			id TEXT NOT NULL UNIQUE,
		type TEXT NOT NULL, schema INTEGER NOT NULL, data JSON NOT NULL, metadata JSON NOT NULL,
		recorded_at BIGINT NOT NULL, UNIQUE (stream, version))`); err != nil {
		b.Fatal(err)
	}
	last := int64(0)
	return eventLog{
		append: func(ctx context.Context, stream string, version int64) error {
			_, err := pool.Exec(ctx,
				`INSERT INTO events (stream, version, id, type, schema, data, metadata, recorded_at) VALUES ($1, $2, $3, $4, $5,
					$6, $7, $8)`,
				stream, version+1, uuid.Must(uuid.NewV7()).String(), "order_paid", 1, eventData, json.RawMessage("{}"),
				time.Now().UnixMicro())
			return err
		},
		read: func(ctx context.Context, take func(string, int64)) error {
			rows, err := pool.Query(ctx,
				"SELECT position, stream, version, id, type, schema, data, metadata, recorded_at FROM events WHERE position > "+
					"$1 ORDER BY position LIMIT 500", last)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var stream, id, typ string
				var version, schema, at int64
				var data, meta json.RawMessage
				if err := rows.Scan(&last, &stream, &version, &id, &typ, &schema, &data, &meta, &at); err != nil {
					return err
				}
				take(stream, version)
			}
			return rows.Err()
		},
	}
}

func sillarLog(b *testing.B, dsn string) eventLog {
	b.Helper()
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{MaxConns: 2 * eventWriters}))
	b.Cleanup(func() { _ = db.Close() })
	s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
	if err := s.EnsureSchema(ctx); err != nil {
		b.Fatal(err)
	}
	cursor := ""
	return eventLog{
		append: func(ctx context.Context, stream string, version int64) error {
			_, err := s.Append(ctx, stream, version, eventstore.Event{Type: "order_paid", Data: eventData})
			return err
		},
		read: func(ctx context.Context, take func(string, int64)) error {
			events, next, err := s.Read(ctx, cursor, 500)
			for _, e := range events {
				take(e.Stream, e.Version)
			}
			cursor = next
			return err
		},
	}
}

// BenchmarkEventAppend has 16 writers, each with streams of its own, and a reader that polls every millisecond. What it
// has missed when all is quiet, or seen in another order than the stream's, is counted.
func BenchmarkEventAppend(b *testing.B) {
	for name, open := range map[string]func(*testing.B, string) eventLog{"sillar": sillarLog,
		"naive-bigserial": naiveLog} {
		b.Run(name, func(b *testing.B) {
			dsn, _ := database(b)
			log := open(b, dsn)
			ctx := context.Background()
			f := follower{last: map[string]int64{}}
			quiet := make(chan struct{})
			var reading, writing sync.WaitGroup
			reading.Go(func() {
				for done := false; ; {
					before := f.seen
					if err := log.read(ctx, f.take); err != nil {
						b.Error(err)
						return
					}
					if f.seen > before {
						continue
					}
					if done {
						return
					}
					select {
					case <-quiet:
						time.Sleep(200 * time.Millisecond) // what is to come comes
						done = true
					case <-time.After(poll):
					}
				}
			})
			var next atomic.Int64
			b.ResetTimer()
			for w := range eventWriters {
				writing.Go(func() {
					for version := int64(0); next.Add(1) <= int64(b.N); version++ {
						// A stream ends after 20 events, as that of an order does.
						if err := log.append(ctx, fmt.Sprintf("order-%d-%d", w, version/20), version%20); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			writing.Wait()
			b.StopTimer()
			close(quiet)
			reading.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			b.ReportMetric(float64(int64(b.N)-f.seen), "missed")
			b.ReportMetric(float64(f.disorder), "disorder")
		})
	}
}

type tally struct{ Cents int64 }

type paid struct {
	OrderID  string `json:"order_id"`
	Cents    int64  `json:"cents"`
	Currency string `json:"currency"`
}

// BenchmarkEventLoad loads an aggregate from histories of several lengths: with snapshots every 100 events, so that at
// most 50 here come after the last, and by folding all. The second is left out for the longest, where it takes a
// second.
func BenchmarkEventLoad(b *testing.B) {
	dbs := map[string]func(b *testing.B) string{
		"postgresql": func(b *testing.B) string { b.Helper(); dsn, _ := database(b); return dsn },
		"sqlite":     func(b *testing.B) string { b.Helper(); return "sqlite:" + filepath.Join(b.TempDir(), "events.db") },
	}
	for name, dsn := range dbs {
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			db := sqldb.Must(sqldb.Open(ctx, dsn(b), sqldb.Config{Synchronous: "NORMAL"}))
			b.Cleanup(func() { _ = db.Close() })
			s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
			if err := s.EnsureSchema(ctx); err != nil {
				b.Fatal(err)
			}
			aggregate := func(every int) *eventstore.Aggregate[tally, paid] {
				return eventstore.Must(eventstore.NewAggregate(s,
					eventstore.Decider[tally, paid]{Evolve: func(t tally, p paid) tally {
						t.Cents += p.Cents
						return t
					}},
					eventstore.Types[paid]{eventstore.Type[paid]("order_paid", 1)}, eventstore.AggregateConfig{Category: "tally",
						SnapshotEvery: every}))
			}
			for _, history := range []int{10, 1000, 100_000} {
				id := fmt.Sprint(history)
				add := func(n int) func(context.Context, tally) ([]paid, error) {
					return func(context.Context, tally) ([]paid, error) {
						list := make([]paid, n)
						for i := range list {
							list[i] = paid{OrderID: "018f7f3c-0000-7000-8000-000000000000", Cents: 1990, Currency: "EUR"}
						}
						return list, nil
					}
				}
				with := aggregate(100)
				for left := history - min(history, 10); left > 0; left -= min(left, 1000) {
					if _, err := with.Handle(ctx, id, add(min(left, 1000))); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := with.Handle(ctx, id, add(min(history, 10))); err != nil {
					b.Fatal(err)
				}
				load := func(what string, a *eventstore.Aggregate[tally, paid]) {
					b.Run(fmt.Sprintf("%d/%s", history, what), func(b *testing.B) {
						for b.Loop() {
							if t, v, err := a.Load(ctx, id); err != nil || v != int64(history) || t.Cents != int64(history)*1990 {
								b.Fatal(t, v, err)
							}
						}
					})
				}
				load("snapshots", with)
				if history < 100_000 {
					load("folding", aggregate(0))
				}
			}
		})
	}
}
