package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL through database/sql

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// In a transaction of the caller's, InTx joins, and leaves commit and rollback to the caller.
func joinsCallers(t *testing.T, db *sqldb.DB, begin func() (ctx context.Context, commit, rollback func() error)) {
	t.Helper()
	table(t, db)
	for _, commits := range []bool{false, true} {
		ctx, commit, rollback := begin()
		t.Cleanup(func() { _ = rollback() }) // else closing would wait for it
		if _, err := db.Tx(ctx); err != nil {
			t.Fatalf("the caller's transaction is not found: %v", err)
		}
		db.AfterCommit(ctx, func() { t.Error("a hook ran, though the commit is not ours") })
		if err := db.InTx(ctx, func(ctx context.Context) error { return insert(ctx, db, "a") }); err != nil {
			t.Fatal(err)
		}
		if db.Dialect() == sqldb.PostgreSQL && count(t, db) != 1 {
			t.Error("InTx committed a transaction of the caller's")
		}
		end, want := rollback, int64(1)
		if commits {
			end, want = commit, 2
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db); n != want {
			t.Errorf("commit %v: %d rows, want %d", commits, n, want)
		}
		if err := insert(ctx, db, "late"); !errors.Is(err, sqldb.ErrTxDone) {
			t.Errorf("after the caller's end: %v, want ErrTxDone", err)
		}
	}
}

func TestCallersPgxTx(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	db := sqldb.Must(sqldb.FromPool(pool, sqldb.Config{}))
	joinsCallers(t, db, func() (context.Context, func() error, func() error) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return db.WithPgxTx(t.Context(), tx), func() error { return tx.Commit(t.Context()) }, func() error {
			return tx.Rollback(t.Context())
		}
	})
	if err := db.Close(); err != nil || pool.Ping(t.Context()) != nil {
		t.Error("Close closed a pool of the caller's")
	}
}

func TestCallersSQLTx(t *testing.T) {
	for name, open := range map[string]func() (*sqldb.DB, *sql.DB){
		"sqlite": func() (*sqldb.DB, *sql.DB) {
			db := sqldb.Must(sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "c.db"),
				sqldb.Config{Synchronous: "NORMAL"}))
			return db, db.SQL()
		},
		"postgresql": func() (*sqldb.DB, *sql.DB) {
			handle, err := sql.Open("pgx", testenv.Postgres(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = handle.Close() })
			return sqldb.Must(sqldb.FromSQL(handle, sqldb.PostgreSQL, sqldb.Config{})), handle
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, handle := open()
			t.Cleanup(func() { _ = db.Close() })
			joinsCallers(t, db, func() (context.Context, func() error, func() error) {
				tx, err := handle.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				return db.WithSQLTx(t.Context(), tx), tx.Commit, tx.Rollback
			})
		})
	}
}
