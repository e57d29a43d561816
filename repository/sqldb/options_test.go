package sqldb_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

func onEach(t *testing.T, test func(t *testing.T, db *sqldb.DB)) {
	for name, dsn := range testenv.SQL() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := sqldb.Must(sqldb.Open(t.Context(), dsn(t), sqldb.Config{}))
			t.Cleanup(func() { _ = db.Close() })
			if err := db.Exec(t.Context(),
				"CREATE TABLE accounts (id INTEGER PRIMARY KEY, cents BIGINT NOT NULL); INSERT INTO accounts VALUES (1, 100), "+
					"(2, 100)"); err != nil {
				t.Fatal(err)
			}
			test(t, db)
		})
	}
}

func sum(t *testing.T, ctx context.Context, db *sqldb.DB) (n int64) {
	t.Helper()
	if err := db.Querier(ctx).QueryRow(ctx, "SELECT sum(cents) FROM accounts").Scan(&n); err != nil {
		t.Error(err)
	}
	return n
}

func TestReadOnlyTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, db *sqldb.DB) {
		opts := sqldb.TxOptions{ReadOnly: true, Isolation: sqldb.RepeatableRead}
		err := db.InTxWith(t.Context(), opts, func(ctx context.Context) error {
			before := sum(t, ctx, db)
			if err := db.Exec(t.Context(), "UPDATE accounts SET cents = 0"); err != nil { // beside it, not in it
				return err
			}
			if after := sum(t, ctx, db); before != 200 || after != before {
				t.Errorf("the sum is %d, then %d, want one snapshot", before, after)
			}
			if err := db.InTxWith(ctx, opts, nil); !errors.Is(err, sqldb.ErrTxOptions) {
				t.Errorf("options inside: %v, want ErrTxOptions", err)
			}
			return db.InTx(ctx, func(context.Context) error { return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.InTxWith(t.Context(), opts, func(ctx context.Context) error {
			return db.Exec(ctx, "UPDATE accounts SET cents = 7")
		})
		if err == nil || sum(t, t.Context(), db) != 0 {
			t.Errorf("a write in a read-only transaction: %v", err)
		}
		if err := db.Exec(t.Context(), "UPDATE accounts SET cents = 1"); err != nil || sum(t, t.Context(), db) != 2 {
			t.Errorf("a write after it: %v", err)
		}
	})
}

// Two serializable transactions, each of which decides by what the other one changes, are not both committed as they
// are.
func TestSerializableTransactions(t *testing.T) {
	onEach(t, func(t *testing.T, db *sqldb.DB) {
		withdraw := func(id int) func() error {
			return func() error {
				return db.InTxWith(t.Context(), sqldb.TxOptions{Isolation: sqldb.Serializable}, func(ctx context.Context) error {
					if sum(t, ctx, db) < 200 {
						return nil
					}
					_, err := db.Querier(ctx).Exec(ctx, "UPDATE accounts SET cents = cents - 200 WHERE id = $1", id)
					return err
				})
			}
		}
		for range 20 {
			if err := db.Exec(t.Context(), "UPDATE accounts SET cents = 100"); err != nil {
				t.Fatal(err)
			}
			errs := make(chan error, 2)
			for id := 1; id <= 2; id++ {
				go func() { errs <- withdraw(id)() }()
			}
			if err := errors.Join(<-errs, <-errs); err != nil {
				t.Fatal(err)
			}
			if got := sum(t, t.Context(), db); got != 0 {
				t.Fatalf("the sum is %d: both have withdrawn", got)
			}
		}
	})
}

// The effects of a function that panicked cannot be separated from the rest: nothing is committed.
func TestSavepointOfAPanicDoomsTheTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, db *sqldb.DB) {
		err := db.InTx(t.Context(), func(ctx context.Context) error {
			func() {
				defer func() { _ = recover() }()
				_ = db.Savepoint(ctx, func(ctx context.Context) error {
					if err := db.Exec(ctx, "UPDATE accounts SET cents = 0"); err != nil {
						t.Error(err)
					}
					panic("half done")
				})
			}()
			return nil
		})
		if got := sum(t, t.Context(), db); !errors.Is(err, sqldb.ErrDoomed) || got != 200 {
			t.Errorf("%v, the sum is %d; want ErrDoomed and 200", err, got)
		}
	})
}

func TestSavepointRollsBackAlone(t *testing.T) {
	onEach(t, func(t *testing.T, db *sqldb.DB) {
		var ran []string
		boom := errors.New("boom")
		set := func(ctx context.Context, cents int) error {
			_, err := db.Querier(ctx).Exec(ctx, "UPDATE accounts SET cents = $1 WHERE id = 1", cents)
			return err
		}
		err := db.InTx(t.Context(), func(ctx context.Context) error {
			if err := set(ctx, 1); err != nil {
				return err
			}
			db.AfterCommit(ctx, func() { ran = append(ran, "outer") })
			for _, fails := range []func(ctx context.Context) error{
				func(context.Context) error { return boom },
				func(ctx context.Context) error { return db.Exec(ctx, "INSERT INTO accounts VALUES (1, 0)") },
				func(ctx context.Context) error { return db.InTx(ctx, func(context.Context) error { return boom }) },
			} {
				if err := db.Savepoint(ctx, func(ctx context.Context) error {
					db.AfterCommit(ctx, func() { ran = append(ran, "undone") })
					db.AfterRollback(ctx, func() { ran = append(ran, "rolled back") })
					return errors.Join(set(ctx, 2), fails(ctx))
				}); err == nil {
					t.Error("the error of fn is lost")
				}
			}
			return db.Savepoint(ctx, func(ctx context.Context) error {
				return db.Savepoint(ctx, func(ctx context.Context) error {
					db.AfterCommit(ctx, func() { ran = append(ran, "inner") })
					_, err := db.Querier(ctx).Exec(ctx, "UPDATE accounts SET cents = cents + 40 WHERE id = 1")
					return err
				})
			})
		})
		if got := sum(t, t.Context(), db); err != nil || got != 141 {
			t.Errorf("the sum is %d, %v, want 41 and 100", got, err)
		}
		want := []string{"rolled back", "rolled back", "rolled back", "outer", "inner"}
		if len(ran) != len(want) || ran[0] != want[0] || ran[3] != want[3] || ran[4] != want[4] {
			t.Errorf("ran %q, want %q", ran, want)
		}
		if err := db.Savepoint(t.Context(), nil); !errors.Is(err, sqldb.ErrNoTx) {
			t.Errorf("outside a transaction: %v", err)
		}
	})
}
