package benchmarks

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// BenchmarkSagaScaleDBOS measures what BenchmarkSagaScale does, of DBOS: so many workflows sleep in its process, which
// is where DBOS keeps them, and as many have ended.
func BenchmarkSagaScaleDBOS(b *testing.B) {
	for _, rows := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) { dbosScale(b, rows) })
	}
}

// pollTimer adds up how long statements take, and counts the polls for work.
type pollTimer struct {
	polls, nanos atomic.Int64
	sincePoll    atomic.Int64 // nanoseconds of statements since the last poll
	least        atomic.Int64 // of those, over all polls
}

type begunKey struct{}

type begunAt struct {
	at      time.Time
	commits bool
}

func (p *pollTimer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if strings.Contains(d.SQL, "ORDER BY priority ASC") {
		p.polls.Add(1)
	}
	commits := strings.EqualFold(d.SQL, "commit") || strings.EqualFold(d.SQL, "rollback")
	return context.WithValue(ctx, begunKey{}, begunAt{time.Now(), commits})
}

func (p *pollTimer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	begun, ok := ctx.Value(begunKey{}).(begunAt)
	if !ok {
		return
	}
	p.nanos.Add(int64(time.Since(begun.at)))
	p.sincePoll.Add(int64(time.Since(begun.at)))
	if begun.commits { // which ends a poll
		if n := p.sincePoll.Swap(0); p.least.Load() == 0 || n < p.least.Load() {
			p.least.Store(n)
		}
	}
}

func dbosScale(b *testing.B, rows int) {
	dsn, _ := database(b)
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		b.Fatal(err)
	}
	var polls pollTimer
	cfg.MaxConns, cfg.ConnConfig.Tracer = 32, &polls
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	ctx, err := dbos.NewContext(context.Background(),
		dbos.Config{AppName: "bench", SystemDBPool: pool, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	step := func(context.Context) (int, error) { return 1, nil }
	flow := func(c dbos.Context, _ int64) (sum int, err error) {
		for range 4 {
			n, err := dbos.RunAsStep(c, step)
			if err != nil {
				return 0, err
			}
			sum += n
		}
		return sum, nil
	}
	var asleep atomic.Int64
	sleep := func(c dbos.Context, _ int64) (int, error) {
		asleep.Add(1)
		_, err := dbos.Sleep(c, time.Hour)
		return 0, err
	}
	dbos.RegisterWorkflow(ctx, flow)
	dbos.RegisterWorkflow(ctx, sleep)
	if err := dbos.Launch(ctx); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = dbos.Shutdown(ctx, 5*time.Second) })
	once := func(i int64, opts ...dbos.WorkflowOption) error {
		h, err := dbos.RunWorkflow(ctx, flow, i, opts...)
		if err == nil {
			_, err = h.GetResult()
		}
		return err
	}
	if err := once(0, dbos.WithWorkflowID("pattern")); err != nil {
		b.Fatal(err)
	}
	before, began := inUse(), time.Now()
	var next atomic.Int64
	var starters sync.WaitGroup
	for range 32 {
		starters.Go(func() {
			for i := next.Add(1); i <= int64(rows); i = next.Add(1) {
				if _, err := dbos.RunWorkflow(ctx, sleep, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	starters.Wait()
	for asleep.Load() < int64(rows) && !b.Failed() {
		time.Sleep(100 * time.Millisecond)
	}
	if rows > 0 {
		b.Logf("%d workflows fell asleep in %v, and take %d bytes each", rows, time.Since(began).Round(time.Second),
			(inUse()-before)/uint64(rows))
	}
	copyWorkflows(b, pool, rows)

	n := int64(0)
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"start-to-end", func() error { n++; return once(n) }},
		{"stuck", func() error {
			_, err := dbos.ListWorkflows(ctx, dbos.WithFilterStatus(dbos.WorkflowStatusError), dbos.WithFilterLimit(100))
			return err
		}},
		{"list", func() error {
			_, err := dbos.ListWorkflows(ctx, dbos.WithFilterStatus(dbos.WorkflowStatusSuccess), dbos.WithFilterLimit(20))
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) { least(b, c.do) })
	}
	b.Run("poll", func(b *testing.B) { // what the statements of a poll take, ten times
		polls.polls.Store(0)
		polls.nanos.Store(0)
		polls.sincePoll.Store(0)
		polls.least.Store(0)
		for polls.polls.Load() < 10 {
			time.Sleep(100 * time.Millisecond)
		}
		b.ReportMetric(float64(polls.nanos.Load())/float64(polls.polls.Load()), "ns/op")
		b.ReportMetric(float64(polls.least.Load()), "least-ns")
	})
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// copyWorkflows copies the workflow that has ended, and its steps.
func copyWorkflows(b *testing.B, pool *pgxpool.Pool, rows int) {
	b.Helper()
	ctx := context.Background()
	for _, table := range []string{"dbos.workflow_status", "dbos.operation_outputs"} {
		_, err := pool.Exec(ctx, `INSERT INTO `+table+` SELECT r.* FROM `+table+` t, generate_series(1, $1) i,
			jsonb_populate_record(NULL::`+table+`, to_jsonb(t) || jsonb_build_object('workflow_uuid', 'ended-' || i)) r
			WHERE t.workflow_uuid = 'pattern'`, rows)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := pool.Exec(ctx, "VACUUM ANALYZE "+table); err != nil {
			b.Fatal(err)
		}
	}
}
