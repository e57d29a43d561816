package sqldb_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// Statements are kept prepared on SQLite: that shows in nothing but time, however many there are, inside and outside of
// transactions, and when the schema changes under them.
func TestPreparedStatementsAreKept(t *testing.T) {
	each(t, func(t *testing.T, open func(sqldb.Config) *sqldb.DB) {
		db := open(sqldb.Config{Synchronous: "NORMAL"})
		table(t, db)
		ctx := t.Context()
		one := func(ctx context.Context, i int) error {
			var n int64
			query := fmt.Sprintf("SELECT v + %d FROM kv WHERE k = $1", i)
			if err := db.Querier(ctx).QueryRow(ctx, query, "n").Scan(&n); err != nil || n != int64(i) {
				return fmt.Errorf("statement %d: %d, %w", i, n, err)
			}
			return nil
		}
		var wg sync.WaitGroup
		for k := range 4 {
			wg.Go(func() {
				for i := k; i < 600; i += 2 { // each twice, more than are kept
					if err := one(ctx, i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for range 3 { // noted, prepared, used
			err := db.InTx(ctx, func(ctx context.Context) error {
				if _, err := db.Querier(ctx).Exec(ctx, "UPDATE kv SET v = v + $1 WHERE k = $2", 0, "n"); err != nil {
					return err
				}
				return one(ctx, 7)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		const all = "SELECT * FROM kv WHERE k = $1"
		var k string
		var v, w int64
		for range 2 {
			if err := db.Querier(ctx).QueryRow(ctx, all, "n").Scan(&k, &v); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Exec(ctx, "ALTER TABLE kv ADD COLUMN w BIGINT NOT NULL DEFAULT 3"); err != nil {
			t.Fatal(err)
		}
		if err := one(ctx, 7); err != nil {
			t.Error(err)
		}
		if db.Dialect() == sqldb.SQLite { // pgx notices on the second attempt only, and says so in its documentation
			if err := db.Querier(ctx).QueryRow(ctx, all, "n").Scan(&k, &v, &w); err != nil || w != 3 {
				t.Errorf("all columns: %d, %v", w, err)
			}
		}
	})
}
