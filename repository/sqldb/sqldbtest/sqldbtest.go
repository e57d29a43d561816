// Package sqldbtest injects faults into a SQL database, for tests of what a program does about them. One connector
// serves everything that the program keeps in the database: repositories, outbox, inbox, sagas, barrier and events.
//
//	db, err := sqldb.Open(ctx, "sqlite::memory:", sqldb.Config{
//		WrapConnector: func(c driver.Connector) driver.Connector { return sqldbtest.Faulty(c, seed, 0.05) },
//	})
package sqldbtest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/internal/faultdraw"
)

// ErrInjected is the error of the faults.
var ErrInjected = faultdraw.ErrInjected

// Faulty returns a connector over c with the faults of a database on a network. rate is the part of the statements,
// begins and commits that fail, such as 0.05:
//
//   - A commit fails before its effect: the transaction is rolled back; or after it: it is committed.
//   - A statement outside a transaction fails before or after its effect, one inside a transaction before it.
//   - Half of the failures of statements inside a transaction, and a quarter of the commits that fail before their
//     effect, are conflicts with another transaction: sqldb.DB.InTx runs its function again.
//
// The faults are those of the seed: the n-th run of a statement always has the same one. Faulty works with every driver
// of database/sql; SQLite runs in the process of the test and in the virtual time of testing/synctest.
func Faulty(c driver.Connector, seed uint64, rate float64) driver.Connector {
	return &connector{c, faultdraw.New(seed, rate)}
}

type connector struct {
	driver.Connector
	draw *faultdraw.Draw
}

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: inner, draw: c.draw}, nil
}

// conn forwards the optional interfaces of a connection. database/sql calls it from one goroutine at a time.
type conn struct {
	driver.Conn
	draw *faultdraw.Draw
	inTx bool
	lost bool // the transaction, in a conflict: nothing but its end is possible
}

// Unwrap returns the connection of the driver.
func (c *conn) Unwrap() driver.Conn { return c.Conn }

// BeginTx implements driver.ConnBeginTx.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.draw.At("begin") != faultdraw.None {
		return nil, injected("begin")
	}
	var inner driver.Tx
	var err error
	if b, ok := c.Conn.(driver.ConnBeginTx); ok {
		inner, err = b.BeginTx(ctx, opts)
	} else {
		inner, err = c.Conn.Begin() //nolint:staticcheck // for drivers without BeginTx
	}
	if err != nil {
		return nil, err
	}
	c.inTx, c.lost = true, false
	return &tx{inner, c}, nil
}

func injected(place string) error { return fmt.Errorf("sqldbtest: %s: %w", place, ErrInjected) }

// conflict is the error of a transaction that lost against another one. It matches ErrInjected.
type conflict struct{ error }

// Retryable reports that the transaction may run again, which sqldb.Retryable asks.
func (conflict) Retryable() bool { return true }

func (c conflict) Unwrap() error { return c.error }

func (c *conn) conflict(place string) error {
	c.lost = true
	return conflict{injected(place + ": conflict with another transaction")}
}

type tx struct {
	inner driver.Tx
	c     *conn
}

// Commit implements driver.Tx.
func (t *tx) Commit() error {
	t.c.inTx = false
	if t.c.lost {
		return errors.Join(t.c.conflict("commit"), t.inner.Rollback())
	}
	switch t.c.draw.At("commit") {
	case faultdraw.Before:
		err := injected("commit")
		if t.c.draw.Part("conflict") < 0.25 {
			err = t.c.conflict("commit")
		}
		return errors.Join(err, t.inner.Rollback())
	case faultdraw.After:
		if err := t.inner.Commit(); err != nil {
			return err
		}
		return injected("commit")
	}
	return t.inner.Commit()
}

// Rollback implements driver.Tx.
func (t *tx) Rollback() error {
	t.c.inTx = false
	return t.inner.Rollback()
}

// run runs a statement under the fault that is drawn for it. undo closes what the statement has returned.
func run[T any](c *conn, query string, statement func() (T, error), undo func(T)) (none T, err error) {
	fault := c.draw.At(query)
	switch {
	case c.inTx && (c.lost || fault == faultdraw.After):
		return none, c.conflict("statement")
	case fault == faultdraw.Before:
		return none, injected("statement")
	}
	out, err := statement()
	if err != nil || fault == faultdraw.None {
		return out, err
	}
	undo(out)
	return none, injected("statement")
}

func (c *conn) exec(query string, statement func() (driver.Result, error)) (driver.Result, error) {
	return run(c, query, statement, func(driver.Result) {})
}

func (c *conn) query(query string, statement func() (driver.Rows, error)) (driver.Rows, error) {
	return run(c, query, statement, func(rows driver.Rows) { _ = rows.Close() })
}

// ExecContext implements driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	e, ok := c.Conn.(driver.ExecerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	return c.exec(query, func() (driver.Result, error) { return e.ExecContext(ctx, query, args) })
}

// QueryContext implements driver.QueryerContext.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := c.Conn.(driver.QueryerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	return c.query(query, func() (driver.Rows, error) { return q.QueryContext(ctx, query, args) })
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	var inner driver.Stmt
	var err error
	if p, ok := c.Conn.(driver.ConnPrepareContext); ok {
		inner, err = p.PrepareContext(ctx, query)
	} else {
		inner, err = c.Conn.Prepare(query)
	}
	if err != nil {
		return nil, err
	}
	return &stmt{inner, c, query}, nil
}

// Ping implements driver.Pinger.
func (c *conn) Ping(ctx context.Context) error {
	if p, ok := c.Conn.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// ResetSession implements driver.SessionResetter.
func (c *conn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// IsValid implements driver.Validator.
func (c *conn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

// CheckNamedValue implements driver.NamedValueChecker.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type stmt struct {
	driver.Stmt
	c    *conn
	text string
}

// ExecContext implements driver.StmtExecContext.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.exec(s.text, func() (driver.Result, error) {
		if e, ok := s.Stmt.(driver.StmtExecContext); ok {
			return e.ExecContext(ctx, args)
		}
		return s.Stmt.Exec(values(args)) //nolint:staticcheck // for drivers without ExecContext
	})
}

// QueryContext implements driver.StmtQueryContext.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.query(s.text, func() (driver.Rows, error) {
		if q, ok := s.Stmt.(driver.StmtQueryContext); ok {
			return q.QueryContext(ctx, args)
		}
		return s.Stmt.Query(values(args)) //nolint:staticcheck // for drivers without QueryContext
	})
}

func values(args []driver.NamedValue) []driver.Value {
	out := make([]driver.Value, len(args))
	for i, a := range args {
		out[i] = a.Value
	}
	return out
}
