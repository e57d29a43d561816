package sqldb_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// SQLite rolls a transaction back by itself when the disk is full or a statement is interrupted. What fn does after
// that belongs to no transaction: it must not stay.
func TestRolledBackBySQLite(t *testing.T) {
	for what, breakIt := range map[string]func(ctx context.Context, q sqldb.Querier) error{
		"a full disk": func(ctx context.Context, q sqldb.Querier) error {
			_, err := q.Exec(ctx, "INSERT INTO t (v) VALUES ($1)", strings.Repeat("x", 1<<20))
			return err
		},
		"a full disk, seen while rows are read": func(ctx context.Context, q sqldb.Querier) error {
			var v string
			return q.QueryRow(ctx, "INSERT INTO t (v) VALUES ($1) RETURNING v", strings.Repeat("x", 1<<20)).Scan(&v)
		},
		"an interrupted statement": func(ctx context.Context, q sqldb.Querier) error {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			_, err := q.Exec(ctx,
				"INSERT INTO t (v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 100000000) SELECT "+
					"max(i) FROM n")
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			db := sqldb.Must(sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "f.db")+"?_pragma=max_page_count(20)",
				sqldb.Config{}))
			defer db.Close()
			if err := db.Exec(t.Context(), "CREATE TABLE t (v)"); err != nil {
				t.Fatal(err)
			}
			err := db.InTx(t.Context(), func(ctx context.Context) error {
				q := db.Querier(ctx)
				if _, err := q.Exec(ctx, "INSERT INTO t (v) VALUES ('before')"); err != nil {
					return err
				}
				if err := breakIt(ctx, q); err == nil || errors.Is(err, sqldb.ErrDoomed) {
					t.Errorf("what was to break: %v", err)
				}
				if _, err := q.Exec(ctx, "INSERT INTO t (v) VALUES ('after')"); !errors.Is(err, sqldb.ErrDoomed) {
					t.Errorf("a statement after it: %v", err)
				}
				var n int
				if err := q.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); !errors.Is(err, sqldb.ErrDoomed) {
					t.Errorf("a query after it: %v", err)
				}
				return nil // all is swallowed
			})
			if !errors.Is(err, sqldb.ErrDoomed) {
				t.Errorf("InTx: %v", err)
			}
			if n := rows(t, db); n != 0 {
				t.Errorf("%d rows stayed", n)
			}
			if err := db.InTx(t.Context(), func(ctx context.Context) error {
				_, err := db.Querier(ctx).Exec(ctx, "INSERT INTO t (v) VALUES ('next')")
				return err
			}); err != nil || rows(t, db) != 1 {
				t.Errorf("the next transaction: %v, %d rows", err, rows(t, db))
			}
		})
	}
}

func rows(t *testing.T, db *sqldb.DB) (n int) {
	t.Helper()
	if err := db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
