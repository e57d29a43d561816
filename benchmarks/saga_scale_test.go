package benchmarks

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// BenchmarkSagaScale measures an orchestrator beside so many sleeping and as many finished sagas: no statement may
// read more than it returns.
func BenchmarkSagaScale(b *testing.B) {
	for _, kind := range []string{"postgresql", "sqlite"} {
		for _, rows := range []int{0, 10_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/rows=%d", kind, rows), func(b *testing.B) { sagaScale(b, kind, rows) })
		}
	}
}

func sagaScale(b *testing.B, kind string, rows int) {
	ctx := context.Background()
	dsn := "sqlite:" + filepath.Join(b.TempDir(), "sagas.db")
	if kind == "postgresql" {
		dsn, _ = database(b)
	}
	db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{}))
	b.Cleanup(func() { _ = db.Close() })
	store := sagasql.Must(sagasql.New(db, sagasql.Config{}))
	if err := store.EnsureSchema(ctx); err != nil {
		b.Fatal(err)
	}
	step := func(_ context.Context, _ *saga.Call, t *trip) error { t.Steps++; return nil }
	def := saga.Define("trip", 1, saga.Step("a", step).Compensate(step), saga.Step("b", step).Compensate(step),
		saga.Pivot("c", step), saga.Retriable("d", step))
	o := saga.Must(saga.New(store, saga.Config{Logger: slog.New(slog.DiscardHandler), ObserveInterval: -1}, def))
	if _, err := def.Start(ctx, o, "pattern", trip{}); err != nil {
		b.Fatal(err)
	}
	copySagas(b, db, rows)

	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- o.Run(running) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	kinds := []saga.Kind{{Name: "trip", Version: 1}}
	n := 0
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"claim", func() error { _, err := store.Claim(ctx, "node", kinds, 64); return err }},
		{"start-to-end", func() error {
			n++
			h, err := def.Start(ctx, o, fmt.Sprint("new-", n), trip{})
			if err == nil {
				_, err = h.Wait(ctx)
			}
			return err
		}},
		{"stuck", func() error { _, err := o.Stuck(ctx, saga.Filter{}); return err }},
		{"list", func() error {
			_, err := o.List(ctx, saga.Filter{Name: "trip", Statuses: []saga.Status{saga.Completed}, Limit: 20})
			return err
		}},
		{"shapes", func() error { _, err := store.Shapes(ctx, kinds[0]); return err }},
		{"prune", func() error { _, err := o.Prune(ctx, time.Unix(1, 0)); return err }},
	} {
		b.Run(c.name, func(b *testing.B) { least(b, c.do) })
	}
}

// least measures calls, and reports the fastest one as well, which says more on a machine that others load.
func least(b *testing.B, do func() error) {
	b.Helper()
	fastest := time.Hour
	for range b.N {
		begun := time.Now()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		fastest = min(fastest, time.Since(begun))
	}
	b.ReportMetric(float64(fastest.Nanoseconds()), "least-ns")
}

// copySagas copies the saga that is there: half of the copies sleep, half have ended.
func copySagas(b *testing.B, db *sqldb.DB, rows int) {
	b.Helper()
	series := "generate_series(1, $1) AS g(i)"
	if db.Dialect() == sqldb.SQLite {
		series = "(WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM g WHERE i < $1) SELECT i FROM g)"
	}
	ctx := context.Background()
	for _, half := range []struct{ prefix, status, wake string }{
		{"sleeping-", "RUNNING", "wake_at + 360000000000"}, {"ended-", "COMPLETED", "wake_at"},
	} {
		_, err := db.Querier(ctx).Exec(ctx,
			`INSERT INTO sillar_sagas (id, name, version, shape, status, position, state, steps, failed_step,
			cause, headers, audit, revision, fence, owner, wake_at, signals, signal_seq, created_at, updated_at)
			SELECT '`+half.prefix+`' || i, name, version, shape, '`+half.status+`', position, state, steps, failed_step,
				cause, headers, audit,
			revision, fence, '', `+half.wake+`, signals, signal_seq, created_at + i, updated_at FROM sillar_sagas, `+series+`
				WHERE id = 'pattern' AND i <= $1`, rows)
		if err != nil {
			b.Fatal(err)
		}
	}
	if db.Dialect() == sqldb.PostgreSQL {
		if _, err := db.Querier(ctx).Exec(ctx, "VACUUM ANALYZE sillar_sagas"); err != nil {
			b.Fatal(err)
		}
	}
}
