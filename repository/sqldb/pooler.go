package sqldb

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// behindPooler reports whether there is a pooler between the pool and PostgreSQL.
func behindPooler(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	return BehindPooler(ctx, conn.Conn())
}

// BehindPooler reports whether a connection leads to a pooler, such as pgbouncer, and not to PostgreSQL itself: the
// backend process in the connection's BackendKeyData differs from the one that answers. Behind a pooler in transaction
// mode statements share no session: no LISTEN, no advisory locks of sessions, no SET, no statements that are kept
// prepared.
func BehindPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	results, err := conn.PgConn().Exec(ctx, "SELECT pg_backend_pid()").ReadAll()
	if err != nil {
		return false, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, fmt.Errorf("sqldb: pg_backend_pid returned %d results", len(results))
	}
	pid, err := strconv.ParseUint(string(results[0].Rows[0][0]), 10, 32)
	return err == nil && uint32(pid) != conn.PgConn().PID(), err
}
