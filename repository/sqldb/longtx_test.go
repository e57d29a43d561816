package sqldb_test

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sillar-go/sillar/repository/sqldb"
)

// A transaction of many statements does not keep something of each until its end.
func TestLongTransaction(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "long.db"),
		sqldb.Config{Synchronous: "OFF"}))
	defer db.Close()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const n = 10_000
	run := func(ctx context.Context) error {
		var one int
		for range n {
			if err := db.Querier(ctx).QueryRow(ctx, "SELECT 1 WHERE $1 = 1", 1).Scan(&one); err != nil {
				return err
			}
		}
		return nil
	}
	for range 2 { // the first one finds out what is worth preparing
		err := db.InTx(t.Context(), func(ctx context.Context) error {
			before := heap()
			if err := run(ctx); err != nil {
				return err
			}
			if kept := heap() - before; kept > 120*n {
				t.Errorf("%d bytes are kept of each statement", kept/n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
