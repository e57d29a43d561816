package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
)

const (
	statementTimeout = 500 * time.Millisecond
	// patience is more than any bound of these tests, on a machine with other work, and less than that of Close.
	patience = 4 * time.Second
)

// silentDB opens a database through a proxy that can make its connections silent: natively, and by database/sql.
func silentDB(t *testing.T, cfg sqldb.Config, check func(t *testing.T, db *sqldb.DB, proxy *faultproxy.Proxy)) {
	t.Helper()
	dsn, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	target := dsn.Host
	for name, open := range map[string]func() (*sqldb.DB, error){
		"pgx": func() (*sqldb.DB, error) { return sqldb.Open(t.Context(), dsn.String(), cfg) },
		"database/sql": func() (*sqldb.DB, error) {
			handle, err := sql.Open("pgx", dsn.String())
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { _ = handle.Close() })
			return sqldb.FromSQL(handle, sqldb.PostgreSQL, cfg)
		},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := faultproxy.New(t, target)
			dsn.Host = proxy.Addr()
			db := sqldb.Must(open())
			t.Cleanup(func() { proxy.Cut(); _ = db.Close() })
			check(t, db, proxy)
		})
	}
}

// within fails the test when fn takes longer than patience.
func within(t *testing.T, what string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatalf("%s did not return within %s", what, patience)
		return nil
	}
}

// silenced checks that a call on a silent connection ended by the bound, and that the error says so.
func silenced(t *testing.T, what string, fn func() error) {
	t.Helper()
	err := within(t, what, fn)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		!strings.Contains(err.Error(), "StatementTimeout") {
		t.Errorf("%s: got %v, want DeadlineExceeded that names StatementTimeout", what, err)
	}
}

// A connection goes silent, and the caller has set no deadline: each kind of call ends by StatementTimeout, and the
// next one takes a new connection.
func TestCallsOnSilentConnectionsEnd(t *testing.T) {
	ctx := t.Context()
	silentDB(t, sqldb.Config{StatementTimeout: statementTimeout}, func(t *testing.T, db *sqldb.DB, p *faultproxy.Proxy) {
		one := func() error { return db.Querier(ctx).QueryRow(ctx, "SELECT 1").Scan(new(int)) }
		inTx := func(fn func(ctx context.Context) error) func() error {
			return func() error {
				return db.InTx(ctx, func(ctx context.Context) error {
					if err := exec(ctx, db, "SELECT 1"); err != nil {
						return err
					}
					p.Freeze()
					return fn(ctx)
				})
			}
		}
		calls := map[string]func() error{
			"Exec":     func() error { p.Freeze(); return exec(ctx, db, "SELECT 1") },
			"QueryRow": func() error { p.Freeze(); return one() },
			"InTx":     func() error { p.Freeze(); return db.InTx(ctx, func(context.Context) error { return nil }) },
			"Exec in a transaction": inTx(func(ctx context.Context) error {
				_, err := db.Querier(ctx).Exec(ctx, "SELECT 1")
				return err
			}),
			"Ping": func() error { p.Freeze(); return db.Ping(ctx) },
			"rows": func() error {
				rows, err := db.Querier(ctx).Query(ctx, "SELECT i, repeat('x', 10000) FROM generate_series(1, 10000) i")
				if err != nil {
					return err
				}
				for n := 0; rows.Next(); n++ {
					if n == 0 {
						p.Freeze()
					}
				}
				err = rows.Err()
				_ = rows.Close()
				return err
			},
		}
		for what, call := range calls {
			if err := one(); err != nil { // so that there is a connection
				t.Fatal(err)
			}
			silenced(t, what, call)
			if err := within(t, "after "+what, one); err != nil {
				t.Errorf("after %s: %v", what, err)
			}
		}
	})
}

// Work between rows, and a statement whose context has a deadline, may take longer than StatementTimeout.
func TestStatementTimeoutBoundsWaitsAlone(t *testing.T) {
	ctx := t.Context()
	cfg := sqldb.Config{StatementTimeout: time.Second}
	silentDB(t, cfg, func(t *testing.T, db *sqldb.DB, _ *faultproxy.Proxy) {
		rows, err := db.Querier(ctx).Query(ctx, "SELECT i, repeat('x', 10000) FROM generate_series(1, 1000) i")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for rows.Next() {
			if n++; n == 1 {
				time.Sleep(2 * cfg.StatementTimeout) // the time that the caller takes
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil || n != 1000 {
			t.Errorf("rows that are read slowly: %d, %v", n, err)
		}
		long, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := exec(long, db, "SELECT pg_sleep(2)"); err != nil {
			t.Errorf("a long statement with a deadline: %v", err)
		}
		silenced(t, "a long statement without one", func() error { return exec(ctx, db, "SELECT pg_sleep(60)") })
	})
}

// Close gives up on a server that is silent.
func TestCloseOfSilentConnections(t *testing.T) {
	dsn, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.New(t, dsn.Host)
	dsn.Host = proxy.Addr()
	db := sqldb.Must(sqldb.Open(t.Context(), dsn.String(), sqldb.Config{StatementTimeout: statementTimeout}))
	proxy.Pause()
	silenced(t, "Exec", func() error { return exec(t.Context(), db, "SELECT 1") }) // whose connection is being closed
	begin := time.Now()
	if err := db.Close(); err == nil || !strings.Contains(err.Error(), "close") {
		t.Errorf("got %v, want an error that says so", err)
	}
	if took := time.Since(begin); took > 3*time.Second+patience {
		t.Errorf("Close took %s", took)
	}
}

// A server accepts connections and says nothing: Open gives up by connect_timeout, and tries the next host before.
func TestOpenOfASilentServer(t *testing.T) {
	dsn, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	answers := dsn.Host
	proxy := faultproxy.New(t, answers)
	proxy.Pause()
	cfg := sqldb.Config{StatementTimeout: statementTimeout} // which does not bound the making of connections
	dsn.Host = proxy.Addr()
	begin := time.Now()
	if db, err := sqldb.Open(t.Context(), dsn.String(), cfg); err == nil {
		t.Errorf("Open of a silent server: %v", db.Close())
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("Open took %s, want some 10s", took)
	}
	dsn.Host = proxy.Addr() + "," + answers
	query := dsn.Query()
	query.Set("connect_timeout", "1")
	dsn.RawQuery = query.Encode()
	db, err := sqldb.Open(t.Context(), dsn.String(), cfg)
	if err != nil {
		t.Fatalf("Open with a second host that answers: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

// exec runs a statement.
func exec(ctx context.Context, db *sqldb.DB, statement string) error {
	_, err := db.Querier(ctx).Exec(ctx, statement)
	return err
}

// What a script builds may take longer than a statement.
func TestScriptMayTakeLongerThanAStatement(t *testing.T) {
	db := sqldb.Must(sqldb.Open(t.Context(), testenv.Postgres(t), sqldb.Config{StatementTimeout: 50 * time.Millisecond}))
	defer db.Close()
	if err := db.Exec(t.Context(), "SELECT pg_sleep(0.3)"); err != nil {
		t.Error(err)
	}
	if _, err := db.Querier(t.Context()).Exec(t.Context(), "SELECT pg_sleep(0.3)"); !errors.Is(err,
		context.DeadlineExceeded) {
		t.Errorf("a statement: got %v, want DeadlineExceeded", err)
	}
}
