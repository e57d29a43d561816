package testenv

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Plans collects how PostgreSQL has run statements.
type Plans struct {
	mu   sync.Mutex
	seen []string
}

// PostgresPlans returns a pool on a database of the test's own, in which nothing is analysed, and the plans of its
// statements. A statement keeps the plan that was made when it came first, as those do that have run often.
func PostgresPlans(t testing.TB) (*pgxpool.Pool, *Plans) {
	t.Helper()
	p := &Plans{}
	cfg, err := pgxpool.ParseConfig(Postgres(t))
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	cfg.MaxConns = 1 // whose plans are all that there are
	cfg.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	cfg.ConnConfig.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen = append(p.seen, n.Message)
	}
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(
			ctx,
			`LOAD 'auto_explain'; SET auto_explain.log_level = notice; SET auto_explain.log_min_duration = 0;
			SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off`,
		)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatalf("testenv: open PostgreSQL: %v", err)
	}
	t.Cleanup(pool.Close)
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatalf("testenv: PostgreSQL with auto_explain, which its contrib package holds: %v", err)
	}
	return pool, p
}

// Unanalysed turns autovacuum off for tables, so that what has been planned stays planned however they grow.
func (p *Plans) Unanalysed(t testing.TB, pool *pgxpool.Pool, tables ...string) {
	t.Helper()
	for _, table := range tables {
		if _, err := pool.Exec(t.Context(), "ALTER TABLE "+table+" SET (autovacuum_enabled = off)"); err != nil {
			t.Fatalf("testenv: %v", err)
		}
	}
}

var (
	// scan is the part of a plan that has read a table, by an index or from its beginning.
	scan    = regexp.MustCompile(`Scan (?:using \S+ )?on \S+ .*\(actual rows=([0-9.]+) loops=([0-9]+)\)`)
	removed = regexp.MustCompile(`Rows Removed by Filter: ([0-9]+)`)
)

// Scans returns the statements since the last call that have looked at as many rows of a table, with their plans.
func (p *Plans) Scans(rows float64) (scans []string) {
	p.mu.Lock()
	seen := p.seen
	p.seen = nil
	p.mu.Unlock()
	for _, plan := range seen {
		for node := range strings.SplitSeq(plan, "->") {
			m := scan.FindStringSubmatch(node)
			if m == nil {
				continue
			}
			looked, _ := strconv.ParseFloat(m[1], 64)
			loops, _ := strconv.ParseFloat(m[2], 64)
			if r := removed.FindStringSubmatch(node); r != nil {
				n, _ := strconv.ParseFloat(r[1], 64)
				looked += n
			}
			if looked*loops >= rows {
				scans = append(scans, plan)
				break
			}
		}
	}
	return scans
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
