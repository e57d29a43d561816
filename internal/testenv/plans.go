package testenv

import (
	"context"
	"regexp"
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
