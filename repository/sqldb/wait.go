package sqldb

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// wait returns a context that is canceled when a wait for PostgreSQL takes longer than StatementTimeout, and whose
// caller has set no deadline. The first wait begins now.
func (db *DB) wait(ctx context.Context) (context.Context, *wait) {
	if _, ok := ctx.Deadline(); ok || db.dialect != PostgreSQL {
		return ctx, nil
	}
	return db.answers.begin(ctx)
}

// failed says of an error that the bound was reached. The driver's error would say that the caller has canceled.
func (v *wait) failed(err error) error {
	if err != nil && v.over() {
		return fmt.Errorf("sqldb: PostgreSQL has not answered within StatementTimeout, %s (a statement that takes longer "+
			"needs a context with a deadline of its own): %w", v.watch.limit, context.DeadlineExceeded)
	}
	return err
}

// bounded runs statements whose waits are bounded.
type bounded struct {
	db *DB
	c  pgxConn
}

func (b bounded) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	ctx, w := b.db.wait(ctx)
	defer w.end()
	tag, err := b.c.Exec(ctx, query, args...)
	return tag, w.failed(err)
}

func (b bounded) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	ctx, w := b.db.wait(ctx)
	rows, err := b.c.Query(ctx, query, args...)
	if err != nil {
		w.end()
		return nil, w.failed(err)
	}
	w.pause()
	if w == nil {
		return rows, nil
	}
	return boundedRows{rows, w}, nil
}

func (b bounded) CopyFrom(
	ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource,
) (int64, error) {
	from, ok := b.c.(copies)
	if !ok {
		return 0, fmt.Errorf("sqldb: %T has no COPY", b.c)
	}
	ctx, w := b.db.wait(ctx)
	defer w.end()
	n, err := from.CopyFrom(ctx, table, columns, src)
	return n, w.failed(err)
}

// boundedRows bounds the wait for each row.
type boundedRows struct {
	pgx.Rows
	wait *wait
}

func (r boundedRows) Next() bool {
	r.wait.begin()
	more := r.Rows.Next()
	if more {
		r.wait.pause()
	} else {
		r.wait.end()
	}
	return more
}

func (r boundedRows) Close() {
	r.wait.begin() // for the rows that are left
	r.Rows.Close()
	r.wait.end()
}

func (r boundedRows) Err() error { return r.wait.failed(r.Rows.Err()) }
