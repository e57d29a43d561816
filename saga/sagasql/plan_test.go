package sagasql

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// No statement reads more than it returns plus a constant, also when it was planned while the table was empty.
func TestStatementsReadWhatTheyReturn(t *testing.T) {
	for _, history := range []bool{false, true} {
		t.Run(fmt.Sprintf("history %v", history), func(t *testing.T) {
			pool, plans := testenv.PostgresPlans(t)
			s := Must(New(sqldb.Must(sqldb.FromPool(pool, sqldb.Config{})), Config{History: history}))
			ctx, kind := t.Context(), saga.Kind{Name: "x", Version: 1}
			if err := s.EnsureSchema(ctx); err != nil {
				t.Fatal(err)
			}
			plans.Unanalysed(t, pool, "sillar_sagas", "sillar_saga_history", "sillar_saga_attributes", "sillar_orchestrators")
			round := 0
			work := func() {
				t.Helper()
				round++
				for _, n := range []int{1, 2, 16, 128} {
					var list []saga.Record
					for i := range n {
						list = append(list, saga.Record{ID: fmt.Sprintf("%d-%d-%d", round, n, i), Name: kind.Name, Version: kind.Version,
							Shape: "s", Status: saga.Running,
							State: []byte("1"), Revision: 1, WakeAt: time.Now().Add(-time.Hour)})
					}
					err := errors.Join(errors.Join(s.insertAll(ctx, writes(t, list, insertion))...),
						errors.Join(s.saveAll(ctx, writes(t, list, saving))...))
					claimed, cerr := s.Claim(ctx, "me", []saga.Kind{kind}, n)
					if err = errors.Join(err, cerr); err != nil || len(claimed) != n {
						t.Fatalf("%d of %d claimed: %v", len(claimed), n, err)
					}
					for i, c := range claimed {
						list[i] = c.Record
						list[i].Status = saga.Completed
					}
					if err := errors.Join(s.saveAll(ctx, writes(t, list, saving))...); err != nil {
						t.Fatal(err)
					}
				}
			}
			look := func() {
				t.Helper()
				for _, f := range []saga.Filter{{Limit: 2}, {Name: "x", Limit: 2},
					{Statuses: []saga.Status{saga.Stuck, saga.Running}, Limit: 2},
					{Name: "x", Statuses: []saga.Status{saga.Compensated}}, {Name: "none"},
					{Limit: 2, Since: time.Now().Add(-time.Hour), After: "5"}, {Name: "x", Until: time.Now().Add(-time.Hour)},
					{IDs: []string{"1-1-0", "7-old"}, Statuses: []saga.Status{saga.Completed}}, {Attribute: "customer", Value: "42",
						Limit: 2}} {
					_, err := s.List(ctx, f)
					f.Limit = 2
					_, cerr := s.Count(ctx, f)
					if err := errors.Join(err, cerr); err != nil {
						t.Fatal(err)
					}
				}
				_, err := s.Shapes(ctx, kind)
				_, perr := s.Prune(ctx, time.Now().Add(-time.Hour), 100)
				claimed, cerr := s.Claim(ctx, "me", []saga.Kind{kind, {Name: "y", Version: 1}}, 64)
				if err := errors.Join(err, perr, cerr); err != nil || len(claimed) != 0 {
					t.Fatalf("%d claimed, %v", len(claimed), err)
				}
			}
			work()
			look()
			const rows = 20_000
			if _, err := pool.Exec(ctx, `INSERT INTO sillar_sagas (`+columns+
				`) SELECT i || '-old', name, version, shape, status, position, state, steps,
				failed_step, cause, headers, audit, revision, fence, owner, wake_at, signals, signal_seq, created_at, updated_at
				FROM sillar_sagas, generate_series(1, $1) i WHERE id = '1-1-0'`, rows); err != nil {
				t.Fatal(err)
			}
			if _, err := pool.Exec(ctx, `INSERT INTO sillar_saga_attributes (name, value, created_at, saga_id)
				SELECT 'customer', CASE WHEN i % 2 = 0 THEN '42' ELSE '43' END, i, i || '-old' FROM generate_series(1,
				$1) i`, rows); err != nil {
				t.Fatal(err)
			}
			for _, status := range []saga.Status{saga.Running, saga.Stuck} { // sleeping ones, of this kind and another
				if _, err := pool.Exec(ctx, `INSERT INTO sillar_sagas (`+columns+
					`) SELECT i || '-' || $2::text, CASE WHEN i % 2 = 0 THEN 'x' ELSE 'z' END,
					version, shape, $2::text, position, state, steps, failed_step, cause, headers, audit, revision, fence, '',
					CASE WHEN i % 2 = 0 THEN wake_at + 3600000000 ELSE 0 END, signals, signal_seq, created_at, updated_at
					FROM sillar_sagas, generate_series(1, $1) i WHERE id = '1-1-0'`, 2*rows, string(status)); err != nil {
					t.Fatal(err)
				}
			}
			work() // as often as before: now all is planned anew
			look()
			plans.Scans(rows)
			work()
			look()
			for _, scan := range plans.Scans(1000) {
				t.Error(scan)
			}
		})
	}
}

func writes(t *testing.T, list []saga.Record, of func(saga.Record) (write, error)) (out []write) {
	t.Helper()
	for _, r := range list {
		w, err := of(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, w)
	}
	return out
}

// On SQLite every statement that looks for sagas uses an index for all that it asks for.
func TestStatementsUseIndexesOnSQLite(t *testing.T) {
	ctx := t.Context()
	db := sqldb.Must(sqldb.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "sagas.db"), sqldb.Config{}))
	t.Cleanup(func() { _ = db.Close() })
	s := Must(New(db, Config{}))
	if err := s.EnsureSchema(ctx); err != nil {
		t.Fatal(err)
	}
	query, args := s.dueSQL([]saga.Kind{{Name: "x", Version: 1}, {Name: "y", Version: 1}}, []any{"dead"}, 64)
	rows, err := s.querier(ctx).Query(ctx, "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(detail, "sillar_sagas") {
			plan = append(plan, detail)
		}
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	free := "SEARCH sillar_sagas USING INDEX sillar_sagas_free (name=? AND version=? AND wake_at<?)"
	owned := "SEARCH sillar_sagas USING INDEX sillar_sagas_owned (owner=? AND name=? AND version=?)"
	if d := cmp.Diff([]string{free, owned, free, owned}, plan); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
}
