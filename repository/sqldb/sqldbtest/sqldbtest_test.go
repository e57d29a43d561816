package sqldbtest_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/repository/sqldb/sqldbtest"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite"
)

func open(t *testing.T, seed uint64, rate float64) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), "sqlite::memory:", sqldb.Config{
		WrapConnector: func(c driver.Connector) driver.Connector { return sqldbtest.Faulty(c, seed, rate) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	until(t, func() error { return db.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS t (x BIGINT)") })
	return db
}

// until repeats what has an injected fault.
func until(t *testing.T, run func() error) (attempts int) {
	t.Helper()
	for {
		attempts++
		err := run()
		if err == nil {
			return attempts
		}
		if !errors.Is(err, sqldbtest.ErrInjected) {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, db *sqldb.DB) (n int64) {
	t.Helper()
	until(t, func() error {
		return db.Querier(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n)
	})
	return n
}

// outcomes runs a write many times, and returns for each whether it failed and whether it had an effect.
func outcomes(t *testing.T, db *sqldb.DB, write func(ctx context.Context) error) (out []string) {
	t.Helper()
	for range 200 {
		before := count(t, db)
		err := write(t.Context())
		if err != nil && !errors.Is(err, sqldbtest.ErrInjected) {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(err != nil, count(t, db)-before))
	}
	return out
}

func TestFaultyFailsBeforeAndAfterTheEffect(t *testing.T) {
	insert := func(db *sqldb.DB) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := db.Querier(ctx).Exec(ctx, "INSERT INTO t VALUES (1)")
			return err
		}
	}
	for name, write := range map[string]func(*sqldb.DB) func(context.Context) error{
		"statement": insert,
		"transaction": func(db *sqldb.DB) func(context.Context) error {
			return func(ctx context.Context) error { return db.InTx(ctx, insert(db)) }
		},
		"returning": func(db *sqldb.DB) func(context.Context) error {
			return func(ctx context.Context) error {
				var x int64
				return db.Querier(ctx).QueryRow(ctx, "INSERT INTO t VALUES (1) RETURNING x").Scan(&x)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t, 7, 0.3)
			got := outcomes(t, db, write(db))
			n := map[string]int{}
			for _, o := range got {
				n[o]++
			}
			if n["false 1"] < 50 || n["true 0"] < 15 || n["true 1"] < 15 || n["false 0"] != 0 {
				t.Errorf("got %v: want success with effect, and failures with and without", n)
			}
			again := open(t, 7, 0.3)
			if second := outcomes(t, again, write(again)); !slices.Equal(got, second) {
				t.Errorf("two runs of one seed differ:\n%v\n%v", got, second)
			}
		})
	}
}

// A statement that fails inside a transaction has had no effect, also where the caller goes on and commits.
func TestFaultyStatementInATransactionFailsBeforeItsEffect(t *testing.T) {
	db := open(t, 5, 0.3)
	failed := 0
	for range 500 {
		before := count(t, db)
		var inserted error
		err := db.InTx(t.Context(), func(ctx context.Context) error {
			_, inserted = db.Querier(ctx).Exec(ctx, "INSERT INTO t VALUES (1)")
			return nil
		})
		if inserted == nil || sqldb.Retryable(inserted) {
			continue
		}
		if !errors.Is(inserted, sqldbtest.ErrInjected) {
			t.Fatal(inserted)
		}
		failed++
		if n := count(t, db) - before; n != 0 {
			t.Errorf("%d rows of a statement that failed; the transaction ended with %v", n, err)
		}
	}
	if failed < 20 {
		t.Errorf("%d statements of 500 failed at a rate of 0.3", failed)
	}
}

// A transaction that loses against another one runs again, and then has its effect once. One whose function goes on
// after the conflict is not committed.
func TestFaultyTransactionsConflict(t *testing.T) {
	db := open(t, 9, 0.2)
	again, swallowed := 0, 0
	for range 200 {
		before, runs, lost := count(t, db), int64(0), false
		err := db.InTx(t.Context(), func(ctx context.Context) error {
			runs++
			_, first := db.Querier(ctx).Exec(ctx, "INSERT INTO t VALUES (1)")
			if lost = sqldb.Retryable(first); lost {
				swallowed++
				return nil
			}
			return first
		})
		if runs > 1 {
			again++
		}
		if n := count(t, db) - before; err == nil && (n != 1 || lost) || n > 1 {
			t.Errorf("%d rows after %d runs, the last one lost: %v, and %v", n, runs, lost, err)
		}
	}
	if again < 10 || swallowed < 5 {
		t.Errorf("%d of 200 transactions ran again, %d conflicts were in a statement, at a rate of 0.2", again, swallowed)
	}
}

// A transfer that is one transaction loses nothing, whatever fails.
func ExampleFaulty() {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{
		WrapConnector: func(c driver.Connector) driver.Connector { return sqldbtest.Faulty(c, 42, 0.2) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	for db.Exec(ctx, "CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, cents BIGINT)") != nil {
	}
	for db.Exec(ctx, "INSERT INTO accounts VALUES ('a', 100), ('b', 100) ON CONFLICT DO NOTHING") != nil {
	}
	failed := 0
	for range 50 {
		err := db.InTx(ctx, func(ctx context.Context) error {
			if err := db.Exec(ctx, "UPDATE accounts SET cents = cents - 1 WHERE id = 'a'"); err != nil {
				return err
			}
			return db.Exec(ctx, "UPDATE accounts SET cents = cents + 1 WHERE id = 'b'")
		})
		if err != nil {
			failed++
		}
	}
	var sum int64
	for db.Querier(ctx).QueryRow(ctx, "SELECT sum(cents) FROM accounts").Scan(&sum) != nil {
	}
	fmt.Println(sum, "cents; some transfers failed:", failed > 0)
	// Output: 200 cents; some transfers failed: true
}
