package testenv

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Statements collects the statements that running code sends to SQL databases, to explain them on larger ones.
type Statements struct {
	mu     sync.Mutex
	seen   map[string][]call // by shape
	pools  int
	server string
}

// call is a statement with the arguments of one time that it ran.
type call struct {
	sql  string
	args []any
}

// samples are how many calls of each shape are kept: one that found little may be planned otherwise than the next.
const samples = 3

var (
	// numbers are times of a statement's own.
	numbers = regexp.MustCompile(`\b[0-9]{10,}\b`)
	// marksOf is a list of parameters, of which there are more or fewer.
	marksOf = regexp.MustCompile(`\$[0-9]+(?:, ?\$[0-9]+)+`)
	// planned are the statements that have plans.
	planned = regexp.MustCompile(`(?i)^\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b`)
)

func (s *Statements) add(query string, args []any) {
	if !planned.MatchString(query) {
		return
	}
	shape := marksOf.ReplaceAllString(numbers.ReplaceAllString(query, "?"), "$1, ...")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string][]call{}
	}
	if len(s.seen[shape]) < samples {
		s.seen[shape] = append(s.seen[shape], call{query, slices.Clone(args)})
	}
}

// TraceQueryStart implements pgx.QueryTracer.
func (s *Statements) TraceQueryStart(
	ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData,
) context.Context {
	s.add(data.SQL, data.Args)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*Statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (s *Statements) TraceBatchStart(
	ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData,
) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		s.add(q.SQL, q.Arguments)
	}
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (*Statements) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (*Statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// Pool returns a pool on an empty schema of a PostgreSQL database, whose statements are collected.
func (s *Statements) Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	s.mu.Lock()
	s.pools++
	schema := fmt.Sprintf("s%d", s.pools)
	s.mu.Unlock()
	cfg, err := pgxpool.ParseConfig(s.server)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	cfg.MaxConns = 8
	cfg.ConnConfig.Tracer = s
	cfg.ConnConfig.RuntimeParams["search_path"] = schema
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err == nil {
		_, err = pool.Exec(t.Context(), "CREATE SCHEMA "+schema)
	}
	if err != nil {
		t.Fatalf("testenv: open PostgreSQL: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Server makes the database for Pool.
func (s *Statements) Server(t testing.TB) { s.server = Postgres(t) }

// SQLite returns a handle on an empty SQLite file, whose statements are collected. Package sqldb/sqlite must be linked.
func (s *Statements) SQLite(t testing.TB) *sql.DB {
	t.Helper()
	// The name of a test may hold a #.
	path := (&url.URL{Path: filepath.Join(t.TempDir(), "test.db")}).EscapedPath()
	dsn := "file:" + path +
		"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_pragma=busy_timeout(5000)"
	plain, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatalf("testenv: open SQLite: %v", err)
	}
	db := sql.OpenDB(recorder{plain.Driver(), dsn, s})
	_ = plain.Close() // it was not used
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// recorder makes connections of SQLite whose statements are collected.
type recorder struct {
	driver driver.Driver
	dsn    string
	to     *Statements
}

func (r recorder) Driver() driver.Driver { return r.driver }

func (r recorder) Connect(context.Context) (driver.Conn, error) {
	c, err := r.driver.Open(r.dsn)
	if err != nil {
		return nil, err
	}
	return recorded{c, r.to}, nil
}

type recorded struct {
	driver.Conn
	to *Statements
}

func (c recorded) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.to.add(query, nil)
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
}

func (c recorded) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.to.add(query, nil)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c recorded) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.to.add(query, nil)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c recorded) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

// take returns what was collected.
func (s *Statements) take() map[string][]call {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}
