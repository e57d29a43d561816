// Package pglisten receives PostgreSQL's notifications on a connection of its own. It notices when the connection has
// gone silent, on which notifications would be missed for good.
package pglisten

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Every is how long a connection is trusted without an answer.
const Every = 20 * time.Second

const (
	acquireTimeout = 30 * time.Second
	answerTimeout  = 5 * time.Second
)

// Run passes the payloads of a channel to notify until ctx ends or the connection fails. It says LISTEN again after
// every, which the server answers within 5 seconds or the connection has failed, and then calls each, if that is not
// nil, within the same bound. Listened reports whether that succeeded once. Behind a pooler such as pgbouncer
// notifications would not come: the error is errors.ErrUnsupported.
func Run(
	ctx context.Context, pool *pgxpool.Pool, channel string, every time.Duration,
	each func(ctx context.Context, conn *pgx.Conn) error, notify func(payload string),
) (listened bool, err error) {
	acquiring, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	pooled, err := pool.Acquire(acquiring)
	if err != nil {
		return false, fmt.Errorf("take a connection: %w", err)
	}
	conn := pooled.Hijack() // a connection that listens must not go back
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if err := direct(ctx, conn); err != nil {
		return false, err
	}
	for {
		if err := listen(ctx, conn, channel, each); err != nil {
			return listened, err
		}
		listened = true
		if err := receive(ctx, conn, every, notify); err != nil {
			return true, err
		}
	}
}

// direct returns an error when there is a pooler between here and PostgreSQL.
func direct(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	pooler, err := BehindPooler(ctx, conn)
	if pooler {
		return fmt.Errorf("%w: a pooler is between here and PostgreSQL", errors.ErrUnsupported)
	}
	return err
}

func listen(
	ctx context.Context, conn *pgx.Conn, channel string, each func(ctx context.Context, conn *pgx.Conn) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil || each == nil {
		return err
	}
	return each(ctx, conn)
}

// receive passes notifications on until it is time to ask for an answer.
func receive(ctx context.Context, conn *pgx.Conn, every time.Duration, notify func(payload string)) error {
	until, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(until)
		switch {
		case err == nil:
			notify(n.Payload)
		case ctx.Err() == nil && until.Err() != nil && !conn.IsClosed():
			return nil
		default:
			return err
		}
	}
}

// BehindPooler is sqldb.BehindPooler.
func BehindPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	results, err := conn.PgConn().Exec(ctx, "SELECT pg_backend_pid()").ReadAll()
	if err != nil {
		return false, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, fmt.Errorf("pg_backend_pid returned %d results", len(results))
	}
	pid, err := strconv.ParseUint(string(results[0].Rows[0][0]), 10, 32)
	return err == nil && uint32(pid) != conn.PgConn().PID(), err
}
