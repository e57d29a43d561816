package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Querier runs statements, inside a transaction or each on its own. Placeholders are $1, $2, ... on both dialects. The
// first argument may be Replan.
type Querier interface {
	// Exec runs a statement and returns how many rows it touched.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	// Query runs a statement that returns rows. The rows must be closed. On SQLite a query that does not begin with
	// SELECT goes to the writer.
	Query(ctx context.Context, query string, args ...any) (Rows, error)
	// QueryRow runs a statement that returns at most one row; its error is ErrNoRows when there is none.
	QueryRow(ctx context.Context, query string, args ...any) Row
}

// Rows is a result being read.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Row is a result of at most one row.
type Row interface {
	Scan(dest ...any) error
}

// Querier returns what statements run on: the transaction that ctx carries for this database, or else each statement
// by itself. When that transaction has ended every call returns ErrTxDone.
func (db *DB) Querier(ctx context.Context) Querier {
	q, err := db.Tx(ctx)
	if err == nil {
		return q
	}
	if errors.Is(err, ErrNoTx) {
		return db.auto()
	}
	return failed{err}
}

// auto returns the Querier outside transactions.
func (db *DB) auto() Querier {
	if db.pool != nil {
		return pgxQuerier{db, pooled{db}}
	}
	return sqlQuerier{db: db, write: db.writer, reads: db.reader}
}

// Exec runs a script of one or several statements without arguments: for schemas. It may take an hour where ctx has no
// deadline: it may build an index.
func (db *DB) Exec(ctx context.Context, script string) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Hour)
		defer cancel()
	}
	_, err := db.Querier(ctx).Exec(ctx, script)
	return err
}

// start begins a span for a statement when its trace is recorded.
func (db *DB) start(ctx context.Context, query string) (context.Context, trace.Span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, nil
	}
	name := operation(query)
	return db.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("db.system.name", string(db.dialect)),
		attribute.String("db.operation.name", name)))
}

// end closes the span. The text of an error stays out of it: drivers quote values.
func end(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil && !errors.Is(err, ErrNoRows) {
		span.SetStatus(codes.Error, "statement failed")
	}
	span.End()
}

// operation is the first word of a statement, in upper case.
func operation(query string) string {
	query = strings.TrimLeft(query, " \t\r\n(")
	if i := strings.IndexAny(query, " \t\r\n("); i > 0 {
		query = query[:i]
	}
	if len(query) > 16 {
		return "SQL"
	}
	return strings.ToUpper(query)
}

type pgxConn interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

type pgxQuerier struct {
	db *DB
	c  pgxConn
}

func (q pgxQuerier) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	ctx, span := q.db.start(ctx, query)
	tag, err := q.c.Exec(ctx, query, q.arguments(args)...)
	err = wrap(err)
	end(span, err)
	return tag.RowsAffected(), err
}

func (q pgxQuerier) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	ctx, span := q.db.start(ctx, query)
	rows, err := q.c.Query(ctx, query, q.arguments(args)...)
	err = wrap(err)
	end(span, err)
	if err != nil {
		return nil, err
	}
	return pgxRows{rows}, nil
}

func (q pgxQuerier) QueryRow(ctx context.Context, query string, args ...any) Row {
	rows, err := q.Query(ctx, query, args...)
	return first{rows, err}
}

type pgxRows struct{ pgx.Rows }

func (r pgxRows) Close() error { r.Rows.Close(); return wrap(r.Rows.Err()) }
func (r pgxRows) Err() error   { return wrap(r.Rows.Err()) }

// first reads the first row of a result and closes it.
type first struct {
	rows Rows
	err  error
}

func (r first) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	if !r.rows.Next() {
		if err := r.rows.Close(); err != nil {
			return err
		}
		if err := r.rows.Err(); err != nil {
			return err
		}
		return ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		_ = r.rows.Close() // the scan's error says more
		return err
	}
	return r.rows.Close()
}

type sqlConn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// sqlQuerier runs statements on handles of database/sql, or in a transaction.
type sqlQuerier struct {
	db           *DB
	write, reads sqlConn
	own          bool // a transaction of ours, not the caller's
	tx           *tx  // nil outside transactions
}

// usable returns an error when the transaction has been lost.
func (q sqlQuerier) usable() error {
	if q.tx == nil {
		return nil
	}
	return q.tx.alive()
}

// failed notes an error of a statement, and returns it with the names of this package.
func (q sqlQuerier) failed(err error) error {
	if err != nil && q.tx != nil && q.db.dialect == SQLite && rollsBack(err) {
		q.tx.doom(err, true)
	}
	return wrap(err)
}

// conn picks the connection for a statement, and the statement where it is prepared.
func (q sqlQuerier) conn(query string) sqlConn {
	if operation(query) == "SELECT" {
		return q.reads
	}
	return q.write
}

func (q sqlQuerier) prepared(ctx context.Context, c sqlConn, query string) *sql.Stmt {
	switch c := c.(type) {
	case *sql.Tx:
		if q.own {
			return q.tx.prepared(ctx, c, q.db.writes, query)
		}
	case *sql.DB:
		if c == q.db.writer {
			return q.db.writes.prepared(ctx, query)
		}
		return q.db.reads.prepared(ctx, query)
	}
	return nil
}

func (q sqlQuerier) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	ctx, span := q.db.start(ctx, query)
	n, err := q.exec(ctx, query, args)
	end(span, err)
	return n, err
}

func (q sqlQuerier) exec(ctx context.Context, query string, args []any) (int64, error) {
	if err := q.usable(); err != nil {
		return 0, err
	}
	args, _ = parameters(args)
	release, err := q.db.takeWriter(ctx, q.write)
	if err != nil {
		return 0, err
	}
	defer release()
	ctx, w := q.db.wait(ctx)
	defer w.end()
	var res sql.Result
	stmt := q.prepared(ctx, q.write, query) //nolint:sqlclosecheck // kept, or closed with its transaction
	if stmt != nil {
		res, err = stmt.ExecContext(ctx, args...)
	} else {
		res, err = q.write.ExecContext(ctx, query, args...)
	}
	if err != nil {
		return 0, q.failed(w.failed(err))
	}
	return res.RowsAffected()
}

func (q sqlQuerier) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	if err := q.usable(); err != nil {
		return nil, err
	}
	ctx, span := q.db.start(ctx, query)
	args, _ = parameters(args)
	c := q.conn(query)
	release, err := q.db.takeWriter(ctx, c)
	if err != nil {
		end(span, err)
		return nil, err
	}
	ctx, w := q.db.wait(ctx)
	var rows *sql.Rows
	if stmt := q.prepared(ctx, c, query); stmt != nil { //nolint:sqlclosecheck // kept, or closed with its transaction
		rows, err = stmt.QueryContext(ctx, args...) //nolint:rowserrcheck // the caller looks, through Rows.Err
	} else {
		rows, err = c.QueryContext(ctx, query, args...) //nolint:rowserrcheck // the caller looks, through Rows.Err
	}
	w.pause()
	err = q.failed(w.failed(err))
	end(span, err)
	if err != nil {
		w.end()
		release()
		return nil, err
	}
	return sqlRows{rows, q, release, w}, nil
}

func (q sqlQuerier) QueryRow(ctx context.Context, query string, args ...any) Row {
	rows, err := q.Query(ctx, query, args...)
	return first{rows, err}
}

// takeWriter waits for the writer when c is the pool of SQLite's single one, for BusyTimeout at most: a statement with
// another context inside a transaction ends in ErrBusy, not in a standstill. What is then done with the writer is
// bounded by the caller's context alone. A transaction already has the writer.
func (db *DB) takeWriter(ctx context.Context, c sqlConn) (release func(), err error) {
	pool, ok := c.(*sql.DB)
	if !ok || db.turn == nil || pool != db.writer {
		return func() {}, nil
	}
	release = sync.OnceFunc(func() { <-db.turn })
	select {
	case db.turn <- struct{}{}:
		return release, nil
	default:
	}
	t := time.NewTimer(db.cfg.BusyTimeout)
	defer t.Stop()
	select {
	case db.turn <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("sqldb: wait for the writer: %w", context.Cause(ctx))
	case <-t.C:
		return nil,
			fmt.Errorf("%w: other transactions have held it for all of BusyTimeout, %s (under load raise it or write less in "+
				"one transaction; an InTx inside another one, with a context of its own, waits for itself)", ErrBusy,
				db.cfg.BusyTimeout)
	}
}

type sqlRows struct {
	*sql.Rows
	q       sqlQuerier
	release func()
	wait    *wait
}

func (r sqlRows) Next() bool {
	r.wait.begin()
	defer r.wait.pause()
	return r.Rows.Next()
}

func (r sqlRows) Close() error {
	defer r.release()
	defer r.wait.end()
	r.wait.begin() // for the rows that are left
	return r.q.failed(r.wait.failed(r.Rows.Close()))
}

func (r sqlRows) Err() error { return r.q.failed(r.wait.failed(r.Rows.Err())) }

// failed answers every call with one error.
type failed struct{ err error }

func (f failed) Exec(context.Context, string, ...any) (int64, error) { return 0, f.err }
func (f failed) Query(context.Context, string, ...any) (Rows, error) { return nil, f.err }
func (f failed) QueryRow(context.Context, string, ...any) Row        { return first{nil, f.err} }
