package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Many openers of one new file wait for each other, and so do those that make its tables.
func TestOpenOfOneNewFileTogether(t *testing.T) {
	dir := t.TempDir()
	for round := range 100 {
		dsn := "sqlite:" + filepath.Join(dir, fmt.Sprint("db", round))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				db, err := sqldb.Open(context.Background(), dsn, sqldb.Config{})
				if err != nil {
					t.Errorf("round %d: Open: %v", round, err)
					return
				}
				defer db.Close()
				err = db.InTx(context.Background(), func(ctx context.Context) error {
					return db.Exec(ctx,
						"CREATE TABLE IF NOT EXISTS t (id TEXT PRIMARY KEY); INSERT INTO t VALUES ('a') ON CONFLICT DO NOTHING")
				})
				if err != nil {
					t.Errorf("round %d: create a table: %v", round, err)
				}
				var n int64
				if err := db.Querier(context.Background()).QueryRow(context.Background(),
					"SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
					t.Errorf("round %d: read: %d, %v", round, n, err)
				}
			})
		}
		wg.Wait()
	}
}

func TestOpenNamesAnEmptyDSN(t *testing.T) {
	if _, err := sqldb.Open(t.Context(), "", sqldb.Config{}); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("got %v, want an error that says so", err)
	}
}

// Another process holds the new file while it is opened: Open waits, for BusyTimeout at most.
func TestOpenWaitsForALockedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	hold := func() (release func()) {
		conn, err := other.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE; CREATE TABLE held (id TEXT)"); err != nil {
			t.Fatal(err)
		}
		return func() {
			_, _ = conn.ExecContext(context.Background(), "ROLLBACK")
			_ = conn.Close()
		}
	}
	release := hold()
	time.AfterFunc(200*time.Millisecond, release)
	db, err := sqldb.Open(t.Context(), "sqlite:"+path, sqldb.Config{})
	if err != nil {
		t.Fatalf("a file that is held for 200 ms: %v", err)
	}
	_ = db.Close()

	path = filepath.Join(t.TempDir(), "db")
	if other, err = sql.Open("sqlite", path); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	defer hold()()
	if _, err := sqldb.Open(t.Context(), "sqlite:"+path,
		sqldb.Config{BusyTimeout: 100 * time.Millisecond}); !errors.Is(err, sqldb.ErrBusy) {
		t.Errorf("a file that is held for good: got %v, want ErrBusy", err)
	}
}

// BusyTimeout bounds the wait for the writer. A statement and a transaction may take longer, and the next one waits.
func TestBusyTimeoutBoundsTheWaitAlone(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.SQLite(t), sqldb.Config{BusyTimeout: 50 * time.Millisecond}))
	defer db.Close()
	const slow = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < $1) INSERT INTO t " +
		"SELECT max(x) FROM n"
	if err := db.Exec(t.Context(), "CREATE TABLE t (x BIGINT)"); err != nil {
		t.Fatal(err)
	}
	for rows, took := 20_000, time.Duration(0); took < 100*time.Millisecond; rows *= 4 {
		start := time.Now()
		_, err := db.Querier(t.Context()).Exec(t.Context(), slow, rows)
		if took = time.Since(start); err != nil {
			t.Fatalf("a statement of %s without another user: %v", took, err)
		}
	}
	err := db.InTx(t.Context(), func(ctx context.Context) error {
		_, err := db.Querier(t.Context()).Exec(t.Context(), "INSERT INTO t VALUES (1)") // with another context
		return err
	})
	if !errors.Is(err, sqldb.ErrBusy) {
		t.Errorf("a statement that waits for its own transaction: got %v, want ErrBusy", err)
	}
	if _, err := db.Querier(t.Context()).Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// The context ends while PostgreSQL commits: the result says what happened.
func TestCommitDuringWhichTheContextEnds(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{}))
	defer db.Close()
	err := db.Exec(t.Context(), `CREATE TABLE t (x BIGINT);
		CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = db.InTx(ctx, func(ctx context.Context) error {
		_, err := db.Querier(ctx).Exec(ctx, "INSERT INTO t VALUES (1)")
		return err
	})
	var n int64
	if err := db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err != nil || n != 1 {
		t.Errorf("InTx: got %v with %d rows, want nil with 1", err, n)
	}
}
