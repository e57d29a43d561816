package benchmarks

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// items makes an empty table of items in a database of its own.
func items(b *testing.B, dsn string) (*sqldb.DB, *sqlrepo.Repo[item]) {
	b.Helper()
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{}))
	b.Cleanup(func() { _ = db.Close() })
	schema, err := sqlrepo.Schema[item](db.Dialect(), "items", []string{"price"})
	if err == nil {
		err = db.Exec(ctx, schema)
	}
	if err != nil {
		b.Fatal(err)
	}
	return db, sqlrepo.Must(sqlrepo.New[item](db, sqlrepo.Config{Table: "items"}))
}

// BenchmarkCreateMany makes 10,000 rows at once, beside pgx's CopyFrom of the same rows.
func BenchmarkCreateMany(b *testing.B) {
	const rows = 10_000
	ctx := context.Background()
	dsn, _ := database(b)
	db, r := items(b, dsn)
	n := int64(0)
	price := func() int64 { n++; return n }
	b.Run("sillar", func(b *testing.B) {
		for range b.N {
			list := make([]item, rows)
			for i := range list {
				list[i] = item{SKU: "sku", Name: "lamp", Description: "a lamp", Price: price(), Stock: 7, Active: true}
			}
			if _, err := r.CreateMany(ctx, list); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("CopyFrom", func(b *testing.B) {
		pool, err := pgxpool.New(ctx, dsn)
		if err != nil {
			b.Fatal(err)
		}
		defer pool.Close()
		_ = db
		for range b.N {
			now := time.Now().UTC()
			list := make([][]any, rows)
			for i := range list {
				list[i] = []any{uuid.Must(uuid.NewV7()).String(), int64(1), now, now, "sku", "lamp", "a lamp", price(), int64(7),
					true}
			}
			names := []string{"id", "version", "created_at", "updated_at", "sku", "name", "description", "price", "stock",
				"active"}
			if _, err := pool.CopyFrom(ctx, pgx.Identifier{"items"}, names, pgx.CopyFromRows(list)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDeepPages reads a page of 50 at the beginning, in the middle and at the end of 200,000 rows, sorted by id,
// by a field that is unique and by one that 1,000 rows have in common, up and down.
func BenchmarkDeepPages(b *testing.B) {
	const rows = 200_000
	for kind, dsn := range map[string]func() string{
		"postgresql": func() string { dsn, _ := database(b); return dsn },
		"sqlite":     func() string { return "sqlite:" + filepath.Join(b.TempDir(), "items.db") },
	} {
		ctx := context.Background()
		db, r := items(b, dsn())
		err := db.Exec(ctx, "CREATE INDEX items_price ON items (price, id); CREATE INDEX items_stock ON items (stock, id)")
		if err != nil {
			b.Fatal(err)
		}
		for from := 0; from < rows; from += 10_000 {
			list := make([]item, 10_000)
			for i := range list {
				list[i] = item{Price: int64(from + i), Stock: int64(from+i) / 1000}
			}
			if _, err := r.CreateMany(ctx, list); err != nil {
				b.Fatal(err)
			}
		}
		if err := db.Exec(ctx, "ANALYZE items"); err != nil {
			b.Fatal(err)
		}
		priceField := repository.Ord(func(i *item) *int64 { return &i.Price })
		stockField := repository.Ord(func(i *item) *int64 { return &i.Stock })
		for name, sort := range map[string][]repository.Sort[item]{
			"id": nil, "unique": {priceField.Asc()}, "ties": {stockField.Asc()}, "ties-down": {stockField.Desc()},
		} {
			q := repository.Query[item]{Sort: sort, Limit: 1000}
			for read := 0; read < rows; read += 1000 {
				if read == 0 || read == rows/2 || read == rows-1000 {
					at := q
					at.Limit = 50
					b.Run(fmt.Sprintf("%s/%s/at=%d", kind, name, read), func(b *testing.B) {
						for range b.N {
							if page, err := r.Find(ctx, at); err != nil || len(page.Items) != 50 {
								b.Fatal(len(page.Items), err)
							}
						}
					})
				}
				page, err := r.Find(ctx, q)
				if err != nil {
					b.Fatal(err)
				}
				q.After = page.Next
			}
		}
	}
}

// BenchmarkHotStream has 16 writers that append to one stream whatever its version, and 16 that have a stream each.
func BenchmarkHotStream(b *testing.B) {
	for _, streams := range []int{1, 16} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			ctx := context.Background()
			dsn, _ := database(b)
			db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{MaxConns: 32}))
			defer db.Close()
			s := sqlevents.Must(sqlevents.New(db, sqlevents.Config{}))
			if err := s.EnsureSchema(ctx); err != nil {
				b.Fatal(err)
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for w := range 16 {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						_, err := s.Append(ctx, fmt.Sprint("order-", w%streams), eventstore.AnyVersion,
							eventstore.Event{Type: "order_paid", Data: eventData})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
		})
	}
}
