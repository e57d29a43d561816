package sqldb_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// What runs inside a transaction with a context of its own fails in a typed error when that holds the last connection,
// and every connection comes back.
func TestExhaustedPool(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t),
		sqldb.Config{MaxConns: 2, BusyTimeout: 300 * time.Millisecond}))
	defer db.Close()
	table(t, db)
	calls := map[string]func(ctx context.Context) error{
		"InTx":     func(ctx context.Context) error { return db.InTx(ctx, func(context.Context) error { return nil }) },
		"Exec":     func(ctx context.Context) error { return insert(ctx, db, "nested") },
		"a script": func(ctx context.Context) error { return db.Exec(ctx, "SELECT 1; SELECT 2") },
		"Query":    func(ctx context.Context) error { _, err := db.Querier(ctx).Query(ctx, "SELECT 1"); return err },
		"QueryRow": func(ctx context.Context) error {
			return db.Querier(ctx).QueryRow(ctx, "SELECT 1").Scan(new(int))
		},
	}
	both := make(chan struct{})
	var held, tried, wg sync.WaitGroup
	held.Add(2)
	tried.Add(2)
	go func() { held.Wait(); close(both) }()
	for range 2 {
		wg.Go(func() {
			err := db.InTx(t.Context(), func(ctx context.Context) error {
				held.Done()
				<-both
				for what, call := range calls {
					if err := call(t.Context()); !errors.Is(err, sqldb.ErrBusy) {
						t.Errorf("%s: %v, want ErrBusy", what, err)
					}
				}
				if err := calls["Exec"](db.WithoutTx(ctx)); !errors.Is(err, sqldb.ErrBusy) {
					t.Errorf("outside of the transaction: %v, want ErrBusy", err)
				}
				brief, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				if err := calls["Exec"](brief); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sqldb.ErrBusy) {
					t.Errorf("with a short deadline: %v", err)
				}
				tried.Done()
				tried.Wait() // the one that is done first must not free its connection for the other
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	checkWaits(t, db)
	if n := db.Pool().Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections did not come back", n)
	}
}

// checkWaits waits for a connection with each kind of call.
func checkWaits(t *testing.T, db *sqldb.DB) {
	t.Helper()
	ctx := t.Context()
	for range 5 {
		rows, err := db.Querier(ctx).Query(ctx, "SELECT generate_series(1, 3)")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() { // to the end, and not closed
			if err := rows.Scan(new(int)); err != nil {
				t.Fatal(err)
			}
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		rows, err = db.Querier(ctx).Query(ctx, "SELECT generate_series(1, 3)")
		if err != nil || !rows.Next() {
			t.Fatal(err)
		}
		if err := errors.Join(rows.Close(), rows.Close()); err != nil { // before the end, and twice
			t.Error(err)
		}
		if err := db.Querier(ctx).QueryRow(ctx, "SELECT 1 / 0").Scan(new(int)); err == nil {
			t.Error("a division by zero")
		}
		if err := db.InTx(ctx, func(context.Context) error { return errBoom }); !errors.Is(err, errBoom) {
			t.Error(err)
		}
		if _, err := db.Querier(ctx).Exec(ctx, "nonsense"); err == nil {
			t.Error("nonsense")
		}
	}
}
