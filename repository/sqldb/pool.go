package sqldb

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// acquire waits for a connection of the pool, for BusyTimeout at most: a statement with another context inside a
// transaction, when all connections are held like that, ends in ErrBusy, not in a standstill.
func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	asked, w := db.places.begin(ctx)
	defer w.end()
	conn, err := db.pool.Acquire(asked)
	if err != nil && w.over() {
		return nil,
			fmt.Errorf("%w: no connection of %d was free or could be made for all of BusyTimeout, %s (raise MaxConns; "+
				"what runs inside InTx with a context of its own needs a second connection)", ErrBusy, db.pool.Config().MaxConns,
				db.cfg.BusyTimeout)
	}
	return conn, err
}

// closePool closes a pool, or leaves the rest to the end of the process.
func closePool(pool *pgxpool.Pool) error {
	closed := make(chan struct{})
	go func() { defer close(closed); pool.Close() }()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-closed:
		return nil
	case <-t.C:
		return fmt.Errorf("sqldb: close: after %s %d connections were in use or could not be closed", closeTimeout,
			pool.Stat().TotalConns())
	}
}

// pooled runs each statement on a connection of the pool.
type pooled struct{ db *DB }

func (p pooled) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	conn, err := p.db.acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer conn.Release()
	return bounded{p.db, conn}.Exec(ctx, query, args...)
}

func (p pooled) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	conn, err := p.db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := bounded{p.db, conn}.Query(ctx, query, args...)
	if err != nil {
		conn.Release()
		return nil, err
	}
	return pooledRows{rows, conn}, nil
}

// pooledRows gives the connection back after the last row, and when it is closed.
type pooledRows struct {
	pgx.Rows
	conn *pgxpool.Conn
}

func (r pooledRows) Next() bool {
	more := r.Rows.Next()
	if !more {
		r.conn.Release()
	}
	return more
}

func (r pooledRows) Close() {
	r.Rows.Close()
	r.conn.Release()
}
