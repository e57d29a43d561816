package benchmarks

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

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

func newRow(n int64) row {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return row{ID: uuid.Must(uuid.NewV7()).String(), Version: 1, CreatedAt: now, UpdatedAt: now,
		SKU: fmt.Sprintf("sku-%d", n), Name: "Lamp of brass",
		Description: "A lamp that stands on the desk and lights what lies there.", Price: n % 500, Stock: 7, Active: true}
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
