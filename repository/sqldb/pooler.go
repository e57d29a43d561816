package sqldb

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/internal/pglisten"
)

// behindPooler reports whether there is a pooler between the pool and PostgreSQL.
func (db *DB) behindPooler(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	conn, err := pool.Acquire(ctx) // connect_timeout bounds it, for one host after the other
	if err != nil {
		return false, err
	}
	defer conn.Release()
	ctx, w := db.wait(ctx)
	defer w.end()
	pooler, err := BehindPooler(ctx, conn.Conn())
	return pooler, w.failed(err)
}

// BehindPooler reports whether a connection leads to a pooler, such as pgbouncer, and not to PostgreSQL itself: the
// backend process in the connection's BackendKeyData differs from the one that answers. Behind a pooler in transaction
// mode statements share no session: no LISTEN, no advisory locks of sessions, no SET, no statements that are kept
// prepared.
func BehindPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	return pglisten.BehindPooler(ctx, conn)
}
