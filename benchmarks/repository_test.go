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

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/schema"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
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

type row struct {
	bun.BaseModel `bun:"table:items" gorm:"-" db:"-"`

	ID          string    `bun:"id,pk" gorm:"primaryKey" db:"id"`
	Version     int64     `bun:"version" gorm:"column:version" db:"version"`
	CreatedAt   time.Time `bun:"created_at" gorm:"autoCreateTime:false" db:"created_at"`
	UpdatedAt   time.Time `bun:"updated_at" gorm:"autoUpdateTime:false" db:"updated_at"`
	SKU         string    `bun:"sku" gorm:"column:sku" db:"sku"`
	Name        string    `bun:"name" db:"name"`
	Description string    `bun:"description" db:"description"`
	Price       int64     `bun:"price" db:"price"`
	Stock       int64     `bun:"stock" db:"stock"`
	Active      bool      `bun:"active" db:"active"`
}

func (row) TableName() string { return "items" }

// lite is row on SQLite, where times are microseconds since 1970.
type lite struct {
	bun.BaseModel `bun:"table:items" db:"-"`

	ID          string `bun:"id,pk" db:"id"`
	Version     int64  `bun:"version" db:"version"`
	CreatedAt   int64  `bun:"created_at" db:"created_at"`
	UpdatedAt   int64  `bun:"updated_at" db:"updated_at"`
	SKU         string `bun:"sku" db:"sku"`
	Name        string `bun:"name" db:"name"`
	Description string `bun:"description" db:"description"`
	Price       int64  `bun:"price" db:"price"`
	Stock       int64  `bun:"stock" db:"stock"`
	Active      bool   `bun:"active" db:"active"`
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

func newRow(n int64) row {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return row{ID: uuid.Must(uuid.NewV7()).String(), Version: 1, CreatedAt: now, UpdatedAt: now,
		SKU: fmt.Sprintf("sku-%d", n), Name: "Lamp of brass",
		Description: "A lamp that stands on the desk and lights what lies there.", Price: n % 500, Stock: 7, Active: true}
}

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

func pgxNative(pool *pgxpool.Pool) mapper {
	scan := func(rows interface{ Scan(...any) error }, r *row) error {
		return rows.Scan(&r.ID, &r.Version, &r.CreatedAt, &r.UpdatedAt, &r.SKU, &r.Name, &r.Description, &r.Price, &r.Stock,
			&r.Active)
	}
	return mapper{
		name: "pgx",
		get: func(ctx context.Context, id string) error {
			return scan(pool.QueryRow(ctx, "SELECT "+columns+" FROM items WHERE id = $1", id), new(row))
		},
		one: func(ctx context.Context, sku string) error {
			return scan(pool.QueryRow(ctx, "SELECT "+columns+" FROM items WHERE sku = $1", sku), new(row))
		},
		create: func(ctx context.Context, n int64) error {
			r := newRow(n)
			_, err := pool.Exec(ctx, "INSERT INTO items ("+columns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
				r.ID, r.Version, r.CreatedAt, r.UpdatedAt, r.SKU, r.Name, r.Description, r.Price, r.Stock, r.Active)
			return err
		},
		list: func(ctx context.Context) (int, error) {
			rows, err := pool.Query(ctx, "SELECT "+columns+" FROM items WHERE price >= $1 ORDER BY price, id LIMIT 101", 100)
			if err != nil {
				return 0, err
			}
			defer rows.Close()
			var out []row
			for rows.Next() {
				var r row
				if err := scan(rows, &r); err != nil {
					return 0, err
				}
				out = append(out, r)
			}
			return len(out) - 1, rows.Err()
		},
		update: func(ctx context.Context, id string) error {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(ctx) }()
			var r row
			if err := scan(tx.QueryRow(ctx, "SELECT "+columns+" FROM items WHERE id = $1 FOR UPDATE", id), &r); err != nil {
				return err
			}
			r.Stock++
			if _, err := tx.Exec(ctx,
				"UPDATE items SET version = $2, updated_at = $3, sku = $4, name = $5, description = $6, price = $7, stock = "+
					"$8, active = $9 WHERE id = $1 AND version = $10",
				r.ID, r.Version+1, time.Now().UTC(), r.SKU, r.Name, r.Description, r.Price, r.Stock, r.Active,
				r.Version); err != nil {
				return err
			}
			return tx.Commit(ctx)
		},
	}
}

// standard is database/sql written by hand, over a handle that reads and one that writes.
func standard[R any](read, write *sql.DB, lock string, fresh func(n int64) R, fields func(*R) []any,
	stamp func() any) mapper {
	return mapper{
		name: "database-sql",
		get: func(ctx context.Context, id string) error {
			return read.QueryRowContext(ctx, "SELECT "+columns+" FROM items WHERE id = $1", id).Scan(fields(new(R))...)
		},
		one: func(ctx context.Context, sku string) error {
			return read.QueryRowContext(ctx, "SELECT "+columns+" FROM items WHERE sku = $1", sku).Scan(fields(new(R))...)
		},
		create: func(ctx context.Context, n int64) error {
			r := fresh(n)
			_, err := write.ExecContext(ctx, "INSERT INTO items ("+columns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
				fields(&r)...)
			return err
		},
		list: func(ctx context.Context) (int, error) {
			rows, err := read.QueryContext(ctx, "SELECT "+columns+" FROM items WHERE price >= $1 ORDER BY price, id LIMIT 101",
				100)
			if err != nil {
				return 0, err
			}
			defer rows.Close()
			var out []R
			for rows.Next() {
				var r R
				if err := rows.Scan(fields(&r)...); err != nil {
					return 0, err
				}
				out = append(out, r)
			}
			return len(out) - 1, rows.Err()
		},
		update: func(ctx context.Context, id string) error {
			tx, err := write.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback() }()
			var r R
			f := fields(&r)
			if err := tx.QueryRowContext(ctx, "SELECT "+columns+" FROM items WHERE id = $1"+lock, id).Scan(f...); err != nil {
				return err
			}
			version := *f[1].(*int64)
			*f[8].(*int64)++
			if _, err := tx.ExecContext(ctx,
				"UPDATE items SET version = $2, updated_at = $3, sku = $4, name = $5, description = $6, price = $7, stock = "+
					"$8, active = $9 WHERE id = $1 AND version = $10",
				f[0], version+1, stamp(), f[4], f[5], f[6], f[7], f[8], f[9], version); err != nil {
				return err
			}
			return tx.Commit()
		},
	}
}

func (r *row) fields() []any {
	return []any{&r.ID, &r.Version, &r.CreatedAt, &r.UpdatedAt, &r.SKU, &r.Name, &r.Description, &r.Price, &r.Stock,
		&r.Active}
}

func (r *lite) fields() []any {
	return []any{&r.ID, &r.Version, &r.CreatedAt, &r.UpdatedAt, &r.SKU, &r.Name, &r.Description, &r.Price, &r.Stock,
		&r.Active}
}

func newLite(n int64) lite {
	r := newRow(n)
	return lite{ID: r.ID, Version: 1, CreatedAt: r.CreatedAt.UnixMicro(), UpdatedAt: r.UpdatedAt.UnixMicro(), SKU: r.SKU,
		Name: r.Name, Description: r.Description, Price: r.Price, Stock: r.Stock, Active: r.Active}
}

func sqlxPeer[R any](read, write *sqlx.DB, lock string, fresh func(n int64) R, next func(*R) int64) mapper {
	return mapper{
		name: "sqlx",
		get: func(ctx context.Context, id string) error {
			return read.GetContext(ctx, new(R), "SELECT "+columns+" FROM items WHERE id = $1", id)
		},
		one: func(ctx context.Context, sku string) error {
			return read.GetContext(ctx, new(R), "SELECT "+columns+" FROM items WHERE sku = $1", sku)
		},
		create: func(ctx context.Context, n int64) error {
			_, err := write.NamedExecContext(ctx, "INSERT INTO items ("+columns+
				") VALUES (:id, :version, :created_at, :updated_at, :sku, :name, :description, :price, :stock, :active)", fresh(n))
			return err
		},
		list: func(ctx context.Context) (int, error) {
			var out []R
			err := read.SelectContext(ctx, &out, "SELECT "+columns+" FROM items WHERE price >= $1 ORDER BY price, id LIMIT 101",
				100)
			return len(out) - 1, err
		},
		update: func(ctx context.Context, id string) error {
			tx, err := write.BeginTxx(ctx, nil)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback() }()
			var r R
			if err := tx.GetContext(ctx, &r, "SELECT "+columns+" FROM items WHERE id = $1"+lock, id); err != nil {
				return err
			}
			next(&r)
			if _, err := tx.NamedExecContext(ctx,
				"UPDATE items SET version = :version, updated_at = :updated_at, sku = :sku, name = :name, description = "+
					":description, price = :price, stock = :stock, active = :active WHERE id = :id AND version = :version - 1",
				r); err != nil {
				return err
			}
			return tx.Commit()
		},
	}
}

func bunPeer[R any](read, write *bun.DB, lock string, fresh func(n int64) R, next func(*R) int64) mapper {
	return mapper{
		name: "bun",
		get: func(ctx context.Context, id string) error {
			return read.NewSelect().Model(new(R)).Where("id = ?", id).Scan(ctx)
		},
		one: func(ctx context.Context, sku string) error {
			return read.NewSelect().Model(new(R)).Where("sku = ?", sku).Scan(ctx)
		},
		create: func(ctx context.Context, n int64) error {
			r := fresh(n)
			_, err := write.NewInsert().Model(&r).Exec(ctx)
			return err
		},
		list: func(ctx context.Context) (int, error) {
			var out []R
			err := read.NewSelect().Model(&out).Where("price >= ?", 100).Order("price", "id").Limit(101).Scan(ctx)
			return len(out) - 1, err
		},
		update: func(ctx context.Context, id string) error {
			return write.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
				var r R
				q := tx.NewSelect().Model(&r).Where("id = ?", id)
				if lock != "" {
					q = q.For("UPDATE")
				}
				if err := q.Scan(ctx); err != nil {
					return err
				}
				version := next(&r)
				_, err := tx.NewUpdate().Model(&r).WherePK().Where("version = ?", version).Exec(ctx)
				return err
			})
		},
	}
}

func gormPeer(db *gorm.DB) mapper {
	return mapper{
		name: "gorm",
		get: func(ctx context.Context, id string) error {
			return db.WithContext(ctx).Where("id = ?", id).Take(new(row)).Error
		},
		one: func(ctx context.Context, sku string) error {
			return db.WithContext(ctx).Where("sku = ?", sku).Take(new(row)).Error
		},
		create: func(ctx context.Context, n int64) error {
			r := newRow(n)
			return db.WithContext(ctx).Create(&r).Error
		},
		list: func(ctx context.Context) (int, error) {
			var out []row
			err := db.WithContext(ctx).Where("price >= ?", 100).Order("price, id").Limit(101).Find(&out).Error
			return len(out) - 1, err
		},
		update: func(ctx context.Context, id string) error {
			return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
				var r row
				if err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).Where("id = ?", id).Take(&r).Error; err != nil {
					return err
				}
				r.Stock++
				r.Version++
				r.UpdatedAt = time.Now().UTC()
				return tx.Model(&r).Where("version = ?", r.Version-1).Select("*").Updates(&r).Error
			})
		},
	}
}

// compete runs all mappers on the same rows.
func compete(b *testing.B, mappers []mapper, ids []string) {
	b.Helper()
	ctx := context.Background()
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
