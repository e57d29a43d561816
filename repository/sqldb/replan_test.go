package sqldb_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Replan is no parameter of a statement, on any database and inside and outside of a transaction, and leaves nothing
// prepared on PostgreSQL.
func TestReplanLeavesNothingPrepared(t *testing.T) {
	run := func(t *testing.T, db *sqldb.DB) {
		t.Helper()
		once := func(ctx context.Context) error {
			var n int64
			if err := db.Querier(ctx).QueryRow(ctx, "SELECT CAST($1 AS BIGINT) + 1", sqldb.Replan, 41).Scan(&n); err != nil ||
				n != 42 {
				t.Errorf("41 + 1 = %d, %v", n, err)
			}
			_, err := db.Querier(ctx).Exec(ctx, "UPDATE kv SET v = v + $1", sqldb.Replan, 1)
			return err
		}
		for range 2 {
			if err := once(t.Context()); err != nil {
				t.Error(err)
			}
			if err := db.InTx(t.Context(), once); err != nil {
				t.Error(err)
			}
		}
	}
	each(t, func(t *testing.T, open func(sqldb.Config) *sqldb.DB) {
		db := open(sqldb.Config{MaxConns: 1})
		table(t, db)
		run(t, db)
		if db.Dialect() != sqldb.PostgreSQL {
			return
		}
		var kept int64
		const query = "SELECT count(*) FROM pg_prepared_statements WHERE statement NOT LIKE '%pg_prepared%'"
		if err := db.Querier(t.Context()).QueryRow(t.Context(), query).Scan(&kept); err != nil || kept != 0 {
			t.Errorf("%d statements are kept, %v", kept, err)
		}
	})
	for name, set := range map[string]func(*pgxpool.Config){
		"a pool of another mode": func(c *pgxpool.Config) {
			c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		},
		"a pool that keeps no description": func(c *pgxpool.Config) { c.ConnConfig.DescriptionCacheCapacity = 0 },
		"database/sql":                     func(*pgxpool.Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := pgxpool.ParseConfig(testenv.Postgres(t))
			if err != nil {
				t.Fatal(err)
			}
			set(cfg)
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
			if name == "database/sql" {
				handle := stdlib.OpenDBFromPool(pool)
				defer handle.Close()
				db = sqldb.Must(sqldb.FromSQL(handle, sqldb.PostgreSQL, sqldb.Config{}))
			}
			table(t, db)
			run(t, db)
		})
	}
}
