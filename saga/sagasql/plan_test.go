package sagasql

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// What was planned for an empty table does not read all of it when it has grown, in groups of every size.
func TestPlans(t *testing.T) {
	for _, history := range []bool{false, true} {
		t.Run(fmt.Sprintf("history %v", history), func(t *testing.T) {
			pool, plans := testenv.PostgresPlans(t)
			s := Must(New(sqldb.Must(sqldb.FromPool(pool, sqldb.Config{})), Config{History: history}))
			ctx, kind := t.Context(), saga.Kind{Name: "x", Version: 1}
			if err := s.EnsureSchema(ctx); err != nil {
				t.Fatal(err)
			}
			plans.Unanalysed(t, pool, "sillar_sagas", "sillar_saga_history", "sillar_orchestrators")
			round := 0
			work := func() {
				t.Helper()
				round++
				for _, n := range []int{1, 2, 16, 128} {
					var list []saga.Record
					for i := range n {
						list = append(list, saga.Record{ID: fmt.Sprintf("%d-%d-%d", round, n, i), Name: kind.Name, Version: kind.Version, Status: saga.Running,
							State: []byte("1"), Revision: 1, WakeAt: time.Now().Add(-time.Hour)})
					}
					err := errors.Join(errors.Join(s.insertAll(ctx, list)...), errors.Join(s.saveAll(ctx, list)...))
					claimed, cerr := s.Claim(ctx, "me", []saga.Kind{kind}, n)
					if err = errors.Join(err, cerr); err != nil || len(claimed) != n {
						t.Fatalf("%d of %d claimed: %v", len(claimed), n, err)
					}
					for i, c := range claimed {
						list[i] = c.Record
						list[i].Status = saga.Completed
					}
					if err := errors.Join(s.saveAll(ctx, list)...); err != nil {
						t.Fatal(err)
					}
				}
			}
			work()
			const rows = 20_000
			if _, err := pool.Exec(ctx, `INSERT INTO sillar_sagas (`+columns+`) SELECT i || '-old', name, version, shape, status, position, state, steps,
				failed_step, cause, headers, audit, revision, fence, owner, wake_at, signals, signal_seq, created_at, updated_at
				FROM sillar_sagas, generate_series(1, $1) i WHERE id = '1-1-0'`, rows); err != nil {
				t.Fatal(err)
			}
			work() // as often as before: now all is planned anew
			plans.Scans(rows)
			work()
			for _, scan := range plans.Scans(rows) {
				t.Error(scan)
			}
		})
	}
}
