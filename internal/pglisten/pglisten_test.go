package pglisten_test

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/pglisten"
	"github.com/sillar-go/sillar/internal/testenv"
)

// Notifications come while the connection is checked in between; when it goes silent Run returns.
func TestRunReturnsOnASilentConnection(t *testing.T) {
	dsn, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.New(t, dsn.Host)
	dsn.Host = proxy.Addr()
	pool, err := pgxpool.New(t.Context(), dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Cut(); pool.Close() })

	checks, got := make(chan struct{}, 100), make(chan string, 1)
	type result struct {
		listened bool
		err      error
	}
	done := make(chan result, 1)
	go func() {
		listened, err := pglisten.Run(t.Context(), pool, "Some.Channel", 100*time.Millisecond,
			func(context.Context, *pgx.Conn) error { checks <- struct{}{}; return nil },
			func(payload string) { got <- payload })
		done <- result{listened, err}
	}()
	for range 3 { // it is checked again and again, and goes on
		await(t, "a check of the connection", checks)
	}
	if _, err := pool.Exec(t.Context(), `SELECT pg_notify('Some.Channel', 'hello')`); err != nil {
		t.Fatal(err)
	}
	if p := await(t, "a notification", got); p != "hello" {
		t.Errorf("got %q, want hello", p)
	}
	proxy.Freeze()
	if r := await(t, "the end on a silent connection", done); !r.listened || !errors.Is(r.err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v, want true and DeadlineExceeded", r.listened, r.err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	ctx, cancel := context.WithCancel(t.Context())
	listens, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		_, err := pglisten.Run(ctx, pool, "c", time.Hour,
			func(context.Context, *pgx.Conn) error { listens <- struct{}{}; return nil }, func(string) {})
		done <- err
	}()
	await(t, "the first check", listens)
	cancel()
	if err := await(t, "the end", done); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
}

func await[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited 30 s for %s", what)
	}
	return v
}
