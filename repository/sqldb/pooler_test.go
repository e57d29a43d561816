package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Through a pooler in transaction mode everything works that works without; a pool of the caller's that keeps
// statements prepared gets an error that says what to set.
func TestEverythingWorksBehindAPooler(t *testing.T) {
	direct := testenv.Postgres(t)
	dsn := testenv.PgBouncer(t, direct)
	db := sqldb.Must(sqldb.Open(t.Context(), dsn, sqldb.Config{MaxConns: 20}))
	defer db.Close()
	table(t, db)
	load := func(db *sqldb.DB) (failed []error) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for w := range 20 {
			wg.Go(func() {
				for i := range 30 {
					key := fmt.Sprint(w, "-", i)
					err := db.InTx(t.Context(), func(ctx context.Context) error {
						_, err := db.Querier(ctx).Exec(ctx, "INSERT INTO kv VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = kv.v + 1",
							key, i)
						return err
					})
					var n int64
					err = errors.Join(err, db.Querier(t.Context()).QueryRow(t.Context(),
						"SELECT v FROM kv WHERE k = ANY ($1)", sqldb.Replan, []string{key}).Scan(&n))
					if err != nil {
						mu.Lock()
						failed = append(failed, err)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return failed
	}
	if failed := load(db); len(failed) > 0 {
		t.Errorf("%d of 600 failed, such as %v", len(failed), failed[0])
	}

	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 20 // with more than the pooler has, statements and connections are mixed up for certain
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	failed := load(sqldb.Must(sqldb.FromPool(pool, sqldb.Config{})))
	if len(failed) == 0 {
		t.Fatal("a pool that keeps statements prepared works: what is tested here?")
	}
	for _, err := range failed {
		if !strings.Contains(err.Error(), "default_query_exec_mode") {
			t.Errorf("the error does not say what to set: %v", err)
		}
	}

	straight := sqldb.Must(sqldb.Open(t.Context(), direct, sqldb.Config{}))
	defer straight.Close()
	for want, db := range map[bool]*sqldb.DB{true: db, false: straight} {
		conn, err := db.Pool().Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := sqldb.BehindPooler(t.Context(), conn.Conn()); err != nil || got != want {
			t.Errorf("behind a pooler: %v, %v, want %v", got, err, want)
		}
		conn.Release()
	}
}

// pqError is as that of lib/pq.
type pqError struct{ code, constraint, detail string }

func (e *pqError) Error() string    { return "pq: " + e.code }
func (e *pqError) SQLState() string { return e.code }
func (e *pqError) Get(k byte) string {
	return map[byte]string{'C': e.code, 'n': e.constraint, 'D': e.detail}[k]
}

func TestErrorsOfOtherDrivers(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", &pqError{"23505", "orders_pkey", `Key (id, "at")=(1, 2) already exists.`})
	if name, columns, ok := sqldb.UniqueViolation(err); !ok || name != "orders_pkey" || fmt.Sprint(columns) != "[id at]" {
		t.Errorf("a violation: %s %v %v", name, columns, ok)
	}
	for code, retryable := range map[string]bool{"40001": true, "40P01": true, "23503": false, "22021": false} {
		err := error(&pqError{code: code})
		_, _, unique := sqldb.UniqueViolation(err)
		if sqldb.Retryable(err) != retryable || unique || sqldb.Unstorable(err) != (code == "22021") ||
			sqldb.SQLState(err) != code {
			t.Errorf("%s: retryable %v, unique %v, unstorable %v", code, sqldb.Retryable(err), unique, sqldb.Unstorable(err))
		}
	}
}
