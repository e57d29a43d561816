package sqldb

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// InsertMany inserts n rows into a table, all or none, as a part of the transaction that ctx carries, if it does: by
// COPY on PostgreSQL, elsewhere by the statement insert for each row. table may name a schema before a dot; columns are
// those of the rows. row returns the values of the row at a place, and may return the same slice each time; it may be
// called again.
func (db *DB) InsertMany(
	ctx context.Context, table string, columns []string, insert string, n int, row func(i int) []any,
) error {
	return db.InTx(ctx, func(ctx context.Context) error {
		q, err := db.Tx(ctx)
		if err != nil {
			return err
		}
		if c, ok := q.(copier); ok {
			_, err := c.copyFrom(ctx, pgx.Identifier(strings.Split(table, ".")), columns, n, row)
			return err
		}
		for i := range n {
			if _, err := q.Exec(ctx, insert, row(i)...); err != nil {
				return err
			}
		}
		return nil
	})
}

// copier is a Querier on PostgreSQL.
type copier interface {
	copyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows int, row func(i int) []any) (int64, error)
}

// copies is a connection of pgx, or a transaction.
type copies interface {
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error)
}

func (q pgxQuerier) copyFrom(
	ctx context.Context, table pgx.Identifier, columns []string, rows int, row func(i int) []any,
) (n int64, err error) {
	from, ok := q.c.(copies)
	if !ok {
		return 0, fmt.Errorf("sqldb: %T has no COPY", q.c)
	}
	ctx, span := q.db.start(ctx, "COPY "+table.Sanitize())
	if span != nil {
		defer func() { end(span, err) }()
	}
	n, err = from.CopyFrom(ctx, table, columns,
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return row(i), nil }))
	return n, wrap(err)
}
