package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/backoff"
)

// txKey keys a transaction by its database: another *DB finds nothing.
type txKey struct{ db *DB }

// tx is a transaction that a context carries.
type tx struct {
	q       Querier
	foreign bool // begun and ended by the caller

	mu     sync.Mutex
	done   bool
	doomed error    // why it must not be committed
	lost   bool     // SQLite has rolled it back, or may have: a further statement would stand alone
	after  []func() // run after the commit
	undone []func() // run after a rollback
	stmts  []txStmt
	few    [2]txStmt // what stmts begins with
	points int       // savepoints that were made
}

// txStmt is a statement that is kept prepared, as database/sql wants it in a transaction.
type txStmt struct {
	query string
	stmt  *sql.Stmt
}

// doom has the transaction rolled back in the end.
func (t *tx) doom(why error, lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.doomed == nil {
		t.doomed = fmt.Errorf("%w: %w", ErrDoomed, why)
	}
	t.lost = t.lost || lost
}

// alive returns an error when no further statement may run.
func (t *tx) alive() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lost {
		return t.doomed
	}
	return nil
}

func (t *tx) end() []func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = true
	after := t.after
	t.after = nil
	return after
}

// prepared returns a statement that is kept prepared, nil where it is not: one for each text, because database/sql
// keeps what it makes for a transaction until that ends.
func (t *tx) prepared(ctx context.Context, in *sql.Tx, kept *statements, query string) *sql.Stmt {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.stmts {
		if s.query == query {
			return s.stmt
		}
	}
	stmt := kept.inTx(ctx, in, query)
	if stmt != nil {
		if t.stmts == nil {
			t.stmts = t.few[:0]
		}
		t.stmts = append(t.stmts, txStmt{query, stmt})
	}
	return stmt
}

func (db *DB) carried(ctx context.Context) *tx {
	t, _ := ctx.Value(txKey{db}).(*tx)
	return t
}

// Tx returns the transaction that ctx carries for this database, ErrNoTx when there is none, or ErrTxDone when it has
// ended.
func (db *DB) Tx(ctx context.Context) (Querier, error) {
	t := db.carried(ctx)
	if t == nil {
		return nil, ErrNoTx
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return nil, ErrTxDone
	}
	return t.q, nil
}

// WithPgxTx returns a context that carries a pgx transaction of the caller's, who also ends it. InTx joins it and
// leaves commit and retry to the caller.
func (db *DB) WithPgxTx(ctx context.Context, t pgx.Tx) context.Context {
	return context.WithValue(ctx, txKey{db}, &tx{q: pgxQuerier{db, bounded{db, t}}, foreign: true})
}

// WithSQLTx is WithPgxTx for a transaction of database/sql.
func (db *DB) WithSQLTx(ctx context.Context, t *sql.Tx) context.Context {
	carried := &tx{foreign: true}
	carried.q = sqlQuerier{db: db, write: t, reads: t, tx: carried}
	return context.WithValue(ctx, txKey{db}, carried)
}

// WithoutTx returns a context that carries no transaction of this database: for work that must stand by itself, and
// for what outlives the transaction.
func (db *DB) WithoutTx(ctx context.Context) context.Context {
	if db.carried(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, txKey{db}, (*tx)(nil))
}

// AfterCommit runs fn once the transaction that ctx carries has been committed, and never when it is rolled back.
// Outside a transaction fn runs at once. Inside a transaction of the caller's own (WithPgxTx, WithSQLTx) the commit
// is not seen, and fn never runs: fn must be a hint, such as waking a poller.
func (db *DB) AfterCommit(ctx context.Context, fn func()) {
	t := db.carried(ctx)
	if t == nil {
		fn()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.foreign && !t.done {
		t.after = append(t.after, fn)
	}
}

// AfterRollback runs fn once the transaction that ctx carries has been rolled back, or its commit has failed, and never
// when it is committed. It reports false, and never runs fn, without a transaction and inside one of the caller's own
// (WithPgxTx, WithSQLTx), whose end is not seen. fn is for what must persist whatever becomes of the transaction: it
// writes with a context of WithoutTx. A transaction that InTx runs again calls it once for each run that registered it.
func (db *DB) AfterRollback(ctx context.Context, fn func()) bool {
	t := db.carried(ctx)
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.foreign || t.done {
		return false
	}
	t.undone = append(t.undone, fn)
	return true
}

// InTx runs fn in a transaction: the one that ctx carries, or else a new one, which it commits when fn returns nil.
// The new transaction is read committed on PostgreSQL and serializable on SQLite. fn may run several times; see the
// package documentation. The context that fn gets carries the transaction, and nothing else does.
func (db *DB) InTx(ctx context.Context, fn func(ctx context.Context) error) error {
	return db.InTxWith(ctx, TxOptions{}, fn)
}

// Isolation is how far a transaction is kept apart from others. On SQLite every transaction is serializable.
type Isolation string

// The levels of isolation. At the two higher ones PostgreSQL may refuse a transaction, which then runs again.
const (
	ReadCommitted  Isolation = "read committed"
	RepeatableRead Isolation = "repeatable read"
	Serializable   Isolation = "serializable"
)

// TxOptions are options of a transaction. The zero TxOptions are those of InTx.
type TxOptions struct {
	// Isolation defaults to that of the database: read committed on PostgreSQL.
	Isolation Isolation
	// ReadOnly makes writes fail. On a SQLite file the transaction does not wait for writers, nor they for it; a database
	// in memory has one connection, and takes writes as well.
	ReadOnly bool
}

// ErrTxOptions says that the context carries a transaction already, which other options cannot join.
var ErrTxOptions = errors.New("sqldb: a transaction with options cannot join another one")

// InTxWith is InTx with options for the new transaction. Where ctx carries a transaction and options are given the
// error is ErrTxOptions.
func (db *DB) InTxWith(ctx context.Context, opts TxOptions, fn func(ctx context.Context) error) error {
	if t := db.carried(ctx); t != nil {
		if opts != (TxOptions{}) {
			return ErrTxOptions
		}
		return db.join(ctx, t, fn)
	}
	retry := backoff.Exponential(2*time.Millisecond, 200*time.Millisecond)
	first := map[string]func(context.Context) error{} // what a further run locks before anything else
	run := func(ctx context.Context) error {
		for _, name := range slices.Sorted(maps.Keys(first)) { // in one order, so that two runs do not wait for each other
			if err := first[name](ctx); err != nil {
				return err
			}
		}
		return fn(ctx)
	}
	for attempt := 1; ; attempt++ {
		err := db.once(ctx, opts, run)
		if err == nil || !Retryable(err) {
			return err
		}
		if attempt >= db.cfg.MaxAttempts {
			return fmt.Errorf("%w in %d runs: %w", ErrContention, attempt, err)
		}
		var locks interface {
			Lock() (name string, take func(ctx context.Context) error)
		}
		if errors.As(err, &locks) {
			name, take := locks.Lock()
			first[name] = take
		}
		if backoff.Sleep(ctx, retry.Delay(attempt)) != nil {
			return err // what the transaction ended with says more than that the wait was cut short
		}
	}
}

func (db *DB) join(ctx context.Context, t *tx, fn func(context.Context) error) error {
	if _, err := db.Tx(ctx); err != nil {
		return err
	}
	err := errUnwound // by a panic or Goexit
	defer func() {
		if err != nil {
			t.doom(err, false)
		}
	}()
	err = fn(ctx)
	return err
}

var errUnwound = errors.New("a nested one ended by a panic")

// commitTimeout bounds a commit after the caller's context no longer does.
const commitTimeout = 10 * time.Second

// once runs fn in one new transaction.
func (db *DB) once(ctx context.Context, opts TxOptions, fn func(context.Context) error) (err error) {
	if trace.SpanFromContext(ctx).IsRecording() {
		var span trace.Span
		ctx, span = db.tracer.Start(ctx, "TRANSACTION", trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(attribute.String("db.system.name", string(db.dialect))))
		defer func() { end(span, err) }()
	}
	t := &tx{}
	commit, rollback, err := db.begin(ctx, t, opts)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		t.end()
		if rerr := rollback(); rerr != nil && err != nil && t.alive() == nil {
			err = errors.Join(err, fmt.Errorf("sqldb: roll back: %w", rerr))
		}
		for _, f := range t.undone { // t is done: nothing is added any more
			f()
		}
	}()
	if err := fn(context.WithValue(ctx, txKey{db}, t)); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("sqldb: the context ended before the commit: %w", err)
	}
	t.mu.Lock()
	doomed := t.doomed
	t.mu.Unlock()
	if doomed != nil {
		return doomed
	}
	after := t.end()
	// A commit that has been sent may take effect whatever becomes of the caller: it is waited for, within a bound of its
	// own, so that its result is known.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	if err := commit(ending); err != nil {
		return fmt.Errorf("sqldb: commit: %w", wrap(err))
	}
	committed = true
	for _, f := range after {
		f()
	}
	return nil
}

// levels are the levels of isolation of database/sql.
var levels = map[Isolation]sql.IsolationLevel{
	ReadCommitted: sql.LevelReadCommitted, RepeatableRead: sql.LevelRepeatableRead, Serializable: sql.LevelSerializable,
}

// begin starts a transaction and gives t its Querier. Rollback must work after the caller's context has ended, within a
// bound of its own.
func (db *DB) begin(
	ctx context.Context, t *tx, opts TxOptions,
) (commit func(context.Context) error, rollback func() error, err error) {
	if db.pool != nil {
		return db.beginPgx(ctx, t, opts)
	}
	return db.beginSQL(ctx, t, opts)
}

func (db *DB) beginPgx(
	ctx context.Context, t *tx, opts TxOptions,
) (commit func(context.Context) error, rollback func() error, err error) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("sqldb: begin: %w", err)
	}
	with := pgx.TxOptions{IsoLevel: pgx.TxIsoLevel(opts.Isolation)}
	if opts.ReadOnly {
		with.AccessMode = pgx.ReadOnly
	}
	asked, w := db.wait(ctx)
	begun, err := conn.BeginTx(asked, with)
	w.end()
	if err != nil {
		conn.Release()
		return nil, nil, fmt.Errorf("sqldb: begin: %w", w.failed(err))
	}
	commit = func(ctx context.Context) error {
		defer conn.Release()
		return begun.Commit(ctx)
	}
	rollback = func() error {
		defer conn.Release()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := begun.Rollback(ctx); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
			return err
		}
		return nil
	}
	t.q = pgxQuerier{db, bounded{db, begun}}
	return commit, rollback, nil
}

func (db *DB) beginSQL(
	ctx context.Context, t *tx, opts TxOptions,
) (commit func(context.Context) error, rollback func() error, err error) {
	from, with, release := db.writer, sql.TxOptions{}, func() {}
	if db.dialect != SQLite {
		with = sql.TxOptions{ReadOnly: opts.ReadOnly, Isolation: levels[opts.Isolation]}
	}
	reads := opts.ReadOnly && db.dialect == SQLite && db.reader != db.writer
	if reads {
		from = db.reader
	} else {
		if release, err = db.takeWriter(ctx, db.writer); err != nil {
			return nil, nil, fmt.Errorf("sqldb: begin: %w", err)
		}
		db.writes.prepareWanted(ctx)
	}
	ctx, w := db.wait(ctx) // database/sql uses it until the end of the transaction
	conn, err := from.Conn(ctx)
	if err != nil {
		w.end()
		release()
		return nil, nil, fmt.Errorf("sqldb: begin: %w", w.failed(err))
	}
	giveBack := func() error {
		defer release()
		defer w.end()
		return conn.Close()
	}
	begun, err := conn.BeginTx(ctx, &with)
	w.pause()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("sqldb: begin: %w", w.failed(err)), giveBack())
	}
	done := func(err error) error {
		if errors.Is(err, sql.ErrTxDone) { // database/sql rolled back when the context ended
			err = nil
		}
		return errors.Join(err, giveBack())
	}
	commit = func(context.Context) error {
		w.begin()
		err := w.failed(begun.Commit())
		return errors.Join(err, giveBack())
	}
	rollback = func() error {
		w.begin()
		err := done(begun.Rollback())
		if errors.Is(err, sql.ErrConnDone) { // a failed commit has given the connection back
			return nil
		}
		return err
	}
	t.q = sqlQuerier{db: db, write: begun, reads: begun, own: !reads, tx: t}
	return commit, rollback, nil
}
