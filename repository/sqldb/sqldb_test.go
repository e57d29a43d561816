package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs a test on every dialect.
func each(t *testing.T, test func(t *testing.T, open func(sqldb.Config) *sqldb.DB)) {
	t.Helper()
	opener := func(t *testing.T, dsn func(*testing.T) string) func(sqldb.Config) *sqldb.DB {
		d := dsn(t)
		return func(cfg sqldb.Config) *sqldb.DB {
			db, err := sqldb.Open(t.Context(), d, cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			return db
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		test(t, opener(t, func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "a b?.db"[:4]+".db") }))
	})
	t.Run("postgresql", func(t *testing.T) {
		test(t, opener(t, func(t *testing.T) string { return testenv.Postgres(t) }))
	})
}

func count(t *testing.T, db *sqldb.DB) (n int64) {
	t.Helper()
	if err := db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM kv").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func table(t *testing.T, db *sqldb.DB) {
	t.Helper()
	if err := db.Exec(t.Context(),
		"CREATE TABLE kv (k TEXT PRIMARY KEY, v BIGINT NOT NULL); INSERT INTO kv VALUES ('n', 0);"); err != nil {
		t.Fatal(err)
	}
}

func insert(ctx context.Context, db *sqldb.DB, k string) error {
	_, err := db.Querier(ctx).Exec(ctx, "INSERT INTO kv VALUES ($1, $2)", k, 1)
	return err
}

var errBoom = errors.New("boom")

func TestInTx(t *testing.T) {
	each(t, func(t *testing.T, open func(sqldb.Config) *sqldb.DB) {
		db := open(sqldb.Config{})
		table(t, db)
		ctx := t.Context()
		want := int64(1)
		check := func(what string, delta int64) {
			t.Helper()
			if want += delta; count(t, db) != want {
				t.Fatalf("%s: %d rows, want %d", what, count(t, db), want)
			}
		}

		var after []string
		var kept context.Context
		err := db.InTx(ctx, func(ctx context.Context) error {
			kept = ctx
			db.AfterCommit(ctx, func() { after = append(after, "outer") })
			if err := insert(ctx, db, "a"); err != nil {
				return err
			}
			return db.InTx(ctx, func(ctx context.Context) error { return insert(ctx, db, "b") })
		})
		if err != nil || len(after) != 1 {
			t.Fatalf("commit: %v, after-commit hooks run: %v", err, after)
		}
		check("commit", 2)
		if err := insert(kept, db, "late"); !errors.Is(err, sqldb.ErrTxDone) {
			t.Fatalf("use after the end: %v", err)
		}
		if err := db.InTx(kept, func(context.Context) error { return nil }); !errors.Is(err, sqldb.ErrTxDone) {
			t.Fatalf("InTx after the end: %v", err)
		}
		if err := db.Exec(kept, "INSERT INTO kv VALUES ('late script', 1)"); !errors.Is(err, sqldb.ErrTxDone) {
			t.Errorf("a script after the end: %v, want ErrTxDone", err)
		}
		if err := db.Querier(kept).QueryRow(ctx, "SELECT 1").Scan(new(int)); !errors.Is(err, sqldb.ErrTxDone) {
			t.Fatalf("QueryRow after the end: %v", err)
		}

		err = db.InTx(ctx, func(ctx context.Context) error {
			db.AfterCommit(ctx, func() { t.Error("a hook of a rolled back transaction ran") })
			return errors.Join(insert(ctx, db, "c"), errBoom)
		})
		if !errors.Is(err, errBoom) {
			t.Fatal(err)
		}
		check("rollback", 0)

		err = db.InTx(ctx, func(ctx context.Context) error {
			_ = db.InTx(ctx, func(ctx context.Context) error { return errors.Join(insert(ctx, db, "d"), errBoom) })
			return nil
		})
		if !errors.Is(err, sqldb.ErrDoomed) {
			t.Fatalf("a swallowed nested failure: %v", err)
		}
		check("doomed", 0)

		func() {
			defer func() {
				if r := recover(); r != errBoom {
					t.Fatalf("recovered %v", r)
				}
			}()
			_ = db.InTx(ctx, func(ctx context.Context) error { _ = insert(ctx, db, "e"); panic(errBoom) })
		}()
		check("panic", 0)

		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = db.InTx(ctx, func(ctx context.Context) error { _ = insert(ctx, db, "f"); runtime.Goexit(); return nil })
		}()
		<-gone
		check("Goexit", 0)

		cctx, cancel := context.WithCancel(ctx)
		err = db.InTx(cctx, func(ctx context.Context) error {
			err := insert(ctx, db, "g")
			cancel()
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
		check("cancel", 0)

		if _, err := db.Tx(ctx); !errors.Is(err, sqldb.ErrNoTx) {
			t.Fatalf("Tx outside: %v", err)
		}
		if err := db.Querier(ctx).QueryRow(ctx, "SELECT v FROM kv WHERE k = $1", "none").Scan(new(int64)); !errors.Is(err,
			sqldb.ErrNoRows) {
			t.Fatalf("no rows: %v", err)
		}
		_, cols, ok := sqldb.UniqueViolation(insert(ctx, db, "a"))
		if !ok || len(cols) != 1 || cols[0] != "k" {
			t.Fatalf("unique violation: %v %v", cols, ok)
		}
		if err := db.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTwoDatabasesNeverMix(t *testing.T) {
	each(t, func(t *testing.T, open func(sqldb.Config) *sqldb.DB) {
		a := open(sqldb.Config{})
		b, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "other.db"), sqldb.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		table(t, a)
		table(t, b)
		err = a.InTx(t.Context(), func(ctx context.Context) error {
			if _, err := b.Tx(ctx); !errors.Is(err, sqldb.ErrNoTx) {
				t.Errorf("b found a's transaction: %v", err)
			}
			return errors.Join(insert(ctx, b, "x"), errBoom)
		})
		if !errors.Is(err, errBoom) {
			t.Fatal(err)
		}
		if count(t, b) != 2 || count(t, a) != 1 {
			t.Fatal("the write to b shared a's fate")
		}
	})
}

// Increments read, then write: under read committed the row lock makes them right, and SQLite has one writer.
func TestConcurrentTransactions(t *testing.T) {
	each(t, func(t *testing.T, open func(sqldb.Config) *sqldb.DB) {
		db := open(sqldb.Config{Synchronous: "NORMAL"})
		table(t, db)
		lock := ""
		if db.Dialect() == sqldb.PostgreSQL {
			lock = " FOR UPDATE"
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 10 {
					err := db.InTx(t.Context(), func(ctx context.Context) error {
						var v int64
						q := db.Querier(ctx)
						if err := q.QueryRow(ctx, "SELECT v FROM kv WHERE k = 'n'"+lock).Scan(&v); err != nil {
							return err
						}
						_, err := q.Exec(ctx, "UPDATE kv SET v = $1 WHERE k = 'n'", v+1)
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		var v int64
		if err := db.Querier(t.Context()).QueryRow(t.Context(), "SELECT v FROM kv WHERE k = 'n'").Scan(&v); err != nil ||
			v != 200 {
			t.Fatalf("%d after 200 increments (%v)", v, err)
		}
	})
}

type code int

func (c code) Error() string { return fmt.Sprint("code ", int(c)) }
func (c code) Code() int     { return int(c) }

func TestOnlyTheOutermostRetries(t *testing.T) {
	db, err := sqldb.Open(t.Context(), "sqlite::memory:", sqldb.Config{MaxAttempts: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	outer, inner := 0, 0
	err = db.InTx(t.Context(), func(ctx context.Context) error {
		outer++
		return db.InTx(ctx, func(context.Context) error { inner++; return code(5) })
	})
	if !errors.Is(err, code(5)) || outer != 3 || inner != 3 {
		t.Fatalf("%v after %d outer and %d inner runs, want 3 and 3", err, outer, inner)
	}
}

func TestNestedWithFreshContextEndsBusy(t *testing.T) {
	db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "x.db"),
		sqldb.Config{BusyTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	table(t, db)
	err = db.InTx(t.Context(), func(context.Context) error {
		return db.InTx(t.Context(), func(context.Context) error { return nil })
	})
	if !errors.Is(err, sqldb.ErrBusy) {
		t.Fatalf("InTx: %v", err)
	}
	err = db.InTx(t.Context(), func(context.Context) error { return insert(t.Context(), db, "x") })
	if !errors.Is(err, sqldb.ErrBusy) {
		t.Fatalf("Exec: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, dsn := range []string{"", "mysql://root:hunter2@x/y", "postgres://u:hunter2@[::1/bad", "sqlite:", "hunter2"} {
		_, err := sqldb.Open(t.Context(), dsn, sqldb.Config{})
		if !errors.Is(err, sqldb.ErrDSN) {
			t.Errorf("Open(%q): %v, want ErrDSN", dsn, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	if _, err := sqldb.Open(t.Context(), "sqlite:x.db", sqldb.Config{Synchronous: "MAYBE; DROP"}); err == nil {
		t.Error("a hostile Synchronous was accepted")
	}
	if _, err := sqldb.Prefix(`x"; DROP TABLE y; --`); err == nil {
		t.Error("a hostile prefix was accepted")
	}
}
