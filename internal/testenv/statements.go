package testenv

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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

// maxRead is how many rows a statement may read more than it returns, or changes.
const maxRead = 1000

// ReadMoreOnPostgres runs what was collected on another database, undoes it, and returns the statements that read more
// rows than they return, with their plans. all is how many there were.
func (s *Statements) ReadMoreOnPostgres(t testing.TB, pool *pgxpool.Pool) (list []string, all int) {
	t.Helper()
	seen := s.take()
	for _, shape := range sortedKeys(seen) {
		var failed error
		ran := false
		for _, c := range seen[shape] {
			read, returned, plan, err := explain(t.Context(), pool, c)
			if err != nil { // it may have failed in the suite as well
				failed = fmt.Errorf("%s\n%w", c.sql, err)
				continue
			}
			ran = true
			if read > returned+maxRead {
				list = append(list, fmt.Sprintf("%s\nreads %.0f rows, returns or changes %.0f\n%s",
					c.sql, read, returned, plan))
				break
			}
		}
		var state interface{ SQLState() string }
		switch {
		case ran:
		case errors.As(failed, &state) && slices.Contains([]string{"22", "23"}, state.SQLState()[:2]):
			t.Logf("testenv: it is refused always: %v", failed)
		default:
			list = append(list, failed.Error())
		}
	}
	return list, len(seen)
}

func sortedKeys(m map[string][]call) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// explain runs a statement in a transaction that is rolled back.
func explain(ctx context.Context, pool *pgxpool.Pool, c call) (read, returned float64, plan string, err error) {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return 0, 0, "", err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	args := slices.DeleteFunc(slices.Clone(c.args), func(a any) bool {
		switch a.(type) {
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			return true
		}
		return false
	})
	args = append([]any{pgx.QueryExecModeCacheDescribe}, args...)
	var raw []byte
	if err := tx.QueryRow(ctx, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+c.sql, args...).Scan(&raw); err != nil {
		return 0, 0, "", err
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(raw, &plans); err != nil || len(plans) != 1 {
		return 0, 0, "", fmt.Errorf("testenv: the plan does not decode: %w", err)
	}
	top := plans[0].Plan
	byTable := map[string]float64{}
	top.read(byTable)
	return slices.Max(append(slices.Collect(maps.Values(byTable)), 0)), top.returned(), string(raw), nil
}

// planNode is a part of a plan of PostgreSQL.
type planNode struct {
	Type      string     `json:"Node Type"`
	Rows      float64    `json:"Actual Rows"`
	Loops     float64    `json:"Actual Loops"`
	Filtered  float64    `json:"Rows Removed by Filter"`
	Rechecked float64    `json:"Rows Removed by Index Recheck"`
	Relation  string     `json:"Relation Name"`
	Index     string     `json:"Index Name"`
	Plans     []planNode `json:"Plans"`
}

// read adds how many rows of tables and indexes the part has read.
func (n planNode) read(byTable map[string]float64) {
	if name := cmp.Or(n.Relation, n.Index); n.Type != "ModifyTable" && name != "" {
		byTable[name] += (n.Rows + n.Filtered + n.Rechecked) * n.Loops
	}
	for _, p := range n.Plans {
		p.read(byTable)
	}
}

// returned is how many rows the part gives, changes, or lets through at a limit.
func (n planNode) returned() (rows float64) {
	rows = n.Rows * n.Loops
	for _, p := range n.Plans {
		switch {
		case n.Type == "ModifyTable":
			rows = max(rows, p.Rows*p.Loops)
		case p.Type == "Limit":
			rows = max(rows, p.Rows*p.Loops)
		}
		rows = max(rows, p.limited())
	}
	return rows
}

// limited is how many rows limits and changes inside the part let through.
func (n planNode) limited() (rows float64) {
	if n.Type == "Limit" || n.Type == "ModifyTable" {
		rows = n.returned()
	}
	for _, p := range n.Plans {
		rows = max(rows, p.limited())
	}
	return rows
}

// scanOf is the step of a plan of SQLite that reads a table, or an index of it, from its beginning.
var scanOf = regexp.MustCompile(`^SCAN (\S+)`)

// endsAtLimit is a statement that reads in the order of an index, if by any from its beginning, up to a limit.
var endsAtLimit = regexp.MustCompile(`\bLIMIT \S+\s*$`)

// parameter is one of a statement by its place, named one by its name.
var (
	parameter = regexp.MustCompile(`\$[0-9]+|\?`)
	named     = regexp.MustCompile(`@([a-z]+)`)
)

// ScansOnSQLite explains what was collected on another database, and returns the statements that read one of its tables
// from the beginning, with their plans. all is how many there were.
func (s *Statements) ScansOnSQLite(t testing.TB, db *sql.DB) (list []string, all int) {
	t.Helper()
	seen := s.take()
	tables := lastColumn(t, db, "SELECT name FROM sqlite_schema WHERE type = 'table'", nil)
	for _, shape := range sortedKeys(seen) {
		query := seen[shape][0].sql
		plan := planOnSQLite(t, db, query)
		if slices.ContainsFunc(plan, func(detail string) bool { return scansTable(detail, query, tables) }) {
			list = append(list, query+"\n"+strings.Join(plan, "\n"))
		}
	}
	return list, len(seen)
}

// PlansOnSQLite explains what was collected, in the order of its text.
func (s *Statements) PlansOnSQLite(t testing.TB, db *sql.DB) (plans []string) {
	t.Helper()
	seen := s.take()
	for _, shape := range sortedKeys(seen) {
		plans = append(plans, strings.Join(planOnSQLite(t, db, seen[shape][0].sql), "\n"))
	}
	return plans
}

func planOnSQLite(t testing.TB, db *sql.DB, query string) []string {
	t.Helper()
	names := map[string]bool{}
	for _, name := range parameter.FindAllString(query, -1) {
		names[name] = true
	}
	var args []any // on which the plan does not depend
	for range names {
		args = append(args, nil)
	}
	if m := named.FindStringSubmatch(query); m != nil {
		args = append(args, sql.Named(m[1], nil))
	}
	return lastColumn(t, db, "EXPLAIN QUERY PLAN "+query, args)
}

// scansTable reports whether a step of a plan reads a table, or an index of it, from the beginning. A plan names a
// table by its alias.
func scansTable(detail, query string, tables []string) bool {
	m := scanOf.FindStringSubmatch(detail)
	if m == nil || strings.Contains(detail, " USING ") && endsAtLimit.MatchString(query) {
		return false
	}
	return slices.ContainsFunc(tables, func(table string) bool {
		alias := regexp.MustCompile(`\b` + regexp.QuoteMeta(table) + `\b[\]"]? (?:AS )?` + regexp.QuoteMeta(m[1]) + `\b`)
		return table == m[1] || alias.MatchString(query)
	})
}

// lastColumn returns the text of the last column of each row: the name of a table, the detail of a step of a plan.
func lastColumn(t testing.TB, db *sql.DB, query string, args []any) (list []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("testenv: %s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatalf("testenv: %s: %v", query, err)
	}
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		to := make([]any, len(columns))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			t.Fatalf("testenv: %s: %v", query, err)
		}
		list = append(list, values[len(values)-1].String)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("testenv: %s: %v", query, err)
	}
	return list
}
