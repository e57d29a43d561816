package benchmarks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/schema"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// item is the entity of the repository benchmarks; row is the same for peers, who know no embedding of ours.
type item struct {
	repository.Meta
	SKU         string
	Name        string
	Description string
	Price       int64
	Stock       int64
	Active      bool
}

const columns = "id, version, created_at, updated_at, sku, name, description, price, stock, active"

// mapper does what the benchmark asks for, all with the same statements and the same meaning: update reads under a
// lock, changes, and writes the next version, in a transaction.
type mapper struct {
	name   string
	get    func(ctx context.Context, id string) error
	one    func(ctx context.Context, sku string) error // by a unique field
	create func(ctx context.Context, n int64) error
	list   func(ctx context.Context) (int, error)
	update func(ctx context.Context, id string) error
}

const stored = 2000

func newItem(n int64) item {
	r := newRow(n)
	return item{SKU: r.SKU, Name: r.Name, Description: r.Description, Price: r.Price, Stock: r.Stock, Active: r.Active}
}

var (
	itemSKU   = repository.Text(func(i *item) *string { return &i.SKU })
	itemPrice = repository.Ord(func(i *item) *int64 { return &i.Price })
	byPrice   = repository.Query[item]{Where: itemPrice.Gte(100), Sort: []repository.Sort[item]{itemPrice.Asc()},
		Limit: 100}
)

func sillarRepo(r *sqlrepo.Repo[item]) mapper {
	return mapper{
		name: "sillar",
		get:  func(ctx context.Context, id string) error { _, err := r.Get(ctx, id); return err },
		one: func(ctx context.Context, sku string) error {
			_, err := repository.One(ctx, r, itemSKU.Eq(sku))
			return err
		},
		create: func(ctx context.Context, n int64) error { _, err := r.Create(ctx, newItem(n)); return err },
		list: func(ctx context.Context) (int, error) {
			page, err := r.Find(ctx, byPrice)
			return len(page.Items), err
		},
		update: func(ctx context.Context, id string) error {
			_, err := r.Update(ctx, id, func(_ context.Context, i *item) error { i.Stock++; return nil })
			return err
		},
	}
}

// compete runs all mappers on the same rows.
func compete(b *testing.B, mappers []mapper, ids []string) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context()) // as that of a request, which a driver has to watch
	defer cancel()
	var made atomic.Int64
	made.Store(time.Now().UnixNano() % 1e9 * 1000)
	for _, op := range []struct {
		name string
		run  func(c mapper, i int) error
	}{
		{"get", func(c mapper, i int) error { return c.get(ctx, ids[i%len(ids)]) }},
		{"one", func(c mapper, i int) error { return c.one(ctx, fmt.Sprint("sku-", i%stored)) }},
		{"list", func(c mapper, _ int) error {
			n, err := c.list(ctx)
			if n != 100 {
				err = errors.Join(err, fmt.Errorf("%d rows, want 100", n))
			}
			return err
		}},
		{"update", func(c mapper, i int) error { return c.update(ctx, ids[i%len(ids)]) }},
		{"create", func(c mapper, _ int) error { return c.create(ctx, made.Add(1)) }},
	} {
		for _, c := range mappers {
			b.Run(op.name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := op.run(c, i); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// fill makes the table and its first rows.
func fill(b *testing.B, db *sqldb.DB) (*sqlrepo.Repo[item], []string) {
	b.Helper()
	ctx := context.Background()
	script, err := sqlrepo.Schema[item](db.Dialect(), "items", []string{"sku"})
	if err == nil {
		err = db.Exec(ctx, script+"CREATE INDEX items_price ON items (price, id);")
	}
	if err != nil {
		b.Fatal(err)
	}
	r := sqlrepo.Must(sqlrepo.New[item](db, sqlrepo.Config{Table: "items"}))
	var ids []string
	err = db.InTx(ctx, func(ctx context.Context) error {
		ids = nil
		for n := range stored {
			i, err := r.Create(ctx, newItem(int64(n)))
			if err != nil {
				return err
			}
			ids = append(ids, i.ID)
		}
		return nil
	})
	if err == nil {
		err = db.Exec(ctx, "ANALYZE items")
	}
	if err != nil {
		b.Fatal(err)
	}
	return r, ids
}

func BenchmarkRepositoryPostgres(b *testing.B) {
	dsn, _ := database(b)
	ctx := context.Background()
	db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{}))
	defer db.Close()
	r, ids := fill(b, db)
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	handle, err := sql.Open("pgx", dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer handle.Close()
	handle.SetMaxIdleConns(8)
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: handle}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		b.Fatal(err)
	}
	next := func(r *row) int64 { r.Stock++; r.Version++; r.UpdatedAt = time.Now().UTC(); return r.Version - 1 }
	x, bn := sqlx.NewDb(handle, "pgx"), bun.NewDB(handle, pgdialect.New())
	compete(b, []mapper{sillarRepo(r), pgxNative(pool),
		standard(handle, handle, " FOR UPDATE", newRow, func(r *row) []any { return r.fields() }, func() any {
			return time.Now().UTC()
		}),
		sqlxPeer(x, x, " FOR UPDATE", newRow, next), bunPeer(bn, bn, " FOR UPDATE", newRow, next), gormPeer(g)}, ids)
}

func BenchmarkRepositorySQLite(b *testing.B) {
	ctx := context.Background()
	path := filepath.Join(b.TempDir(), "items.db")
	db := sqldb.Must(sqldb.Open(ctx, "sqlite:"+path, sqldb.Config{Synchronous: "NORMAL"}))
	defer db.Close()
	r, ids := fill(b, db)
	const pragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)"
	read, err1 := sql.Open("sqlite", "file:"+path+"?"+pragmas)
	write, err2 := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&"+pragmas)
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	write.SetMaxOpenConns(1)
	read.SetMaxIdleConns(8)
	next := func(r *lite) int64 {
		r.Stock++
		r.Version++
		r.UpdatedAt = time.Now().UnixMicro()
		return r.Version - 1
	}
	var d schema.Dialect = sqlitedialect.New()
	compete(b, []mapper{sillarRepo(r),
		standard(read, write, "", newLite, func(r *lite) []any { return r.fields() }, func() any {
			return time.Now().UnixMicro()
		}),
		sqlxPeer(sqlx.NewDb(read, "sqlite"), sqlx.NewDb(write, "sqlite"), "", newLite, next),
		bunPeer(bun.NewDB(read, d), bun.NewDB(write, d), "", newLite, next)}, ids)
}
