package simulation_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/faultdraw"
)

// disk is a SQLite database in memory that outlives the processes that open it. It has one connection, which a crash
// takes from the process: the open transaction is rolled back.
type disk struct {
	name string
	draw *faultdraw.Draw
	bug  bug

	mu    sync.Mutex
	raw   driver.Conn
	owner *dbConn
}

var errCrashed = errors.New("simulation: the process has crashed")

// maxCommit is how long a commit takes at most.
const maxCommit = 5 * time.Millisecond

// connector opens the disk for a process.
func (d *disk) connector(c driver.Connector, p *process) driver.Connector {
	return &diskConnector{c, d, p}
}

type diskConnector struct {
	driver.Connector
	disk *disk
	p    *process
}

// Connect implements driver.Connector.
func (c *diskConnector) Connect(ctx context.Context) (driver.Conn, error) {
	d := c.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.p.crashed() {
		return nil, errCrashed
	}
	if d.raw == nil {
		raw, err := c.Connector.Connect(ctx)
		if err != nil {
			return nil, err
		}
		d.raw = raw
	}
	if d.owner != nil {
		return nil, fmt.Errorf("simulation: two processes opened the database of %s", d.name)
	}
	d.owner = &dbConn{disk: d, rows: map[*dbRows]struct{}{}, stmts: map[*dbStmt]struct{}{}}
	return d.owner, nil
}

// detach takes the connection from the process that has it.
func (d *disk) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != nil {
		d.owner.end()
	}
}

// close ends the database.
func (d *disk) close() error {
	d.detach()
	if d.raw == nil {
		return nil
	}
	return d.raw.Close()
}

// query reads rows of text, also while a process has the connection.
func (d *disk) query(sql string) (out [][]string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.raw == nil {
		return nil, nil
	}
	rows, err := d.raw.(driver.QueryerContext).QueryContext(context.Background(), sql, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.name, err)
	}
	defer rows.Close()
	for {
		vals := make([]driver.Value, len(rows.Columns()))
		if rows.Next(vals) != nil {
			return out, nil
		}
		row := make([]string, len(vals))
		for i, v := range vals {
			if b, ok := v.([]byte); ok {
				v = string(b)
			}
			row[i] = fmt.Sprint(v)
		}
		out = append(out, row)
	}
}

// dbConn is the connection while a process has it.
type dbConn struct {
	disk  *disk
	dead  bool
	tx    driver.Tx
	rows  map[*dbRows]struct{}
	stmts map[*dbStmt]struct{}
	// outbox are the inserts of the transaction into the outbox, for the bug publishBeforeCommit.
	outbox []statement
}

type statement struct {
	query string
	args  []driver.NamedValue
}

// end gives the connection back. The disk's mutex is held.
func (c *dbConn) end() {
	if c.dead {
		return
	}
	c.dead = true
	c.disk.owner = nil
	for r := range c.rows {
		_ = r.Rows.Close()
	}
	for s := range c.stmts {
		_ = s.Stmt.Close()
	}
	if c.tx != nil {
		_ = c.tx.Rollback()
		c.undone()
	}
}

// undone publishes what the transaction would have published, for the bug publishBeforeCommit.
func (c *dbConn) undone() {
	for _, s := range c.outbox {
		_, _ = c.disk.raw.(driver.ExecerContext).ExecContext(context.Background(), s.query, s.args)
	}
	c.outbox = nil
}

func (c *dbConn) lock() error {
	c.disk.mu.Lock()
	if c.dead {
		c.disk.mu.Unlock()
		return errCrashed
	}
	return nil
}

// Close implements driver.Conn.
func (c *dbConn) Close() error {
	c.disk.mu.Lock()
	defer c.disk.mu.Unlock()
	c.end()
	return nil
}

// Begin implements driver.Conn.
func (c *dbConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx implements driver.ConnBeginTx.
func (c *dbConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.lock(); err != nil {
		return nil, err
	}
	defer c.disk.mu.Unlock()
	tx, err := c.disk.raw.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.tx, c.outbox = tx, nil
	return &dbTx{c}, nil
}

type dbTx struct{ c *dbConn }

// Commit implements driver.Tx.
func (t *dbTx) Commit() error {
	d := t.c.disk
	time.Sleep(time.Duration(d.draw.Part("commit "+d.name) * float64(maxCommit)))
	if err := t.c.lock(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	tx := t.c.tx
	t.c.tx, t.c.outbox = nil, nil
	return tx.Commit()
}

// Rollback implements driver.Tx.
func (t *dbTx) Rollback() error {
	if err := t.c.lock(); err != nil {
		return err
	}
	defer t.c.disk.mu.Unlock()
	tx := t.c.tx
	t.c.tx = nil
	err := tx.Rollback()
	t.c.undone()
	return err
}

// Prepare implements driver.Conn.
func (c *dbConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *dbConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.lock(); err != nil {
		return nil, err
	}
	defer c.disk.mu.Unlock()
	inner, err := c.disk.raw.(driver.ConnPrepareContext).PrepareContext(ctx, c.disk.bug.rewrite(query))
	if err != nil {
		return nil, err
	}
	s := &dbStmt{inner, c, query}
	c.stmts[s] = struct{}{}
	return s, nil
}

// ExecContext implements driver.ExecerContext.
func (c *dbConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.lock(); err != nil {
		return nil, err
	}
	defer c.disk.mu.Unlock()
	c.keep(query, args)
	return c.disk.raw.(driver.ExecerContext).ExecContext(ctx, c.disk.bug.rewrite(query), args)
}

func (c *dbConn) keep(query string, args []driver.NamedValue) {
	if c.disk.bug.keeps(query) && c.tx != nil {
		c.outbox = append(c.outbox, statement{query, args})
	}
}

// QueryContext implements driver.QueryerContext.
func (c *dbConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.lock(); err != nil {
		return nil, err
	}
	defer c.disk.mu.Unlock()
	return c.opened(c.disk.raw.(driver.QueryerContext).QueryContext(ctx, c.disk.bug.rewrite(query), args))
}

func (c *dbConn) opened(rows driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, err
	}
	r := &dbRows{rows, c}
	c.rows[r] = struct{}{}
	return r, nil
}

// Ping implements driver.Pinger.
func (c *dbConn) Ping(context.Context) error {
	if err := c.lock(); err != nil {
		return err
	}
	c.disk.mu.Unlock()
	return nil
}

// IsValid implements driver.Validator.
func (c *dbConn) IsValid() bool { return c.Ping(context.Background()) == nil }

type dbStmt struct {
	driver.Stmt
	c    *dbConn
	text string
}

// Close implements driver.Stmt.
func (s *dbStmt) Close() error {
	if s.c.lock() != nil {
		return nil // end has closed it
	}
	defer s.c.disk.mu.Unlock()
	delete(s.c.stmts, s)
	return s.Stmt.Close()
}

// ExecContext implements driver.StmtExecContext.
func (s *dbStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.c.lock(); err != nil {
		return nil, err
	}
	defer s.c.disk.mu.Unlock()
	s.c.keep(s.text, args)
	return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

// QueryContext implements driver.StmtQueryContext.
func (s *dbStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.c.lock(); err != nil {
		return nil, err
	}
	defer s.c.disk.mu.Unlock()
	return s.c.opened(s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args))
}

type dbRows struct {
	driver.Rows
	c *dbConn
}

// Next implements driver.Rows.
func (r *dbRows) Next(dest []driver.Value) error {
	if err := r.c.lock(); err != nil {
		return err
	}
	defer r.c.disk.mu.Unlock()
	return r.Rows.Next(dest)
}

// Close implements driver.Rows.
func (r *dbRows) Close() error {
	if r.c.lock() != nil {
		return nil
	}
	defer r.c.disk.mu.Unlock()
	delete(r.c.rows, r)
	return r.Rows.Close()
}
