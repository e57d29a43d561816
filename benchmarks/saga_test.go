package benchmarks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cschleiden/go-workflows/backend"
	"github.com/cschleiden/go-workflows/backend/postgres"
	"github.com/cschleiden/go-workflows/client"
	"github.com/cschleiden/go-workflows/registry"
	"github.com/cschleiden/go-workflows/worker"
	"github.com/cschleiden/go-workflows/workflow"
	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // go-workflows takes a database/sql handle

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// database makes a database of the benchmark's own on the server that SILLAR_POSTGRES_URL names.
func database(b *testing.B) (dsn string, commits func() int64) {
	b.Helper()
	server := os.Getenv("SILLAR_POSTGRES_URL")
	if server == "" {
		b.Skip("no PostgreSQL: run `tools/services up`, then `eval \"$(tools/services env)\"`")
	}
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		b.Fatal("SILLAR_POSTGRES_URL is no URL")
	}
	ctx := context.Background()
	admin, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		b.Fatal(err)
	}
	name := fmt.Sprintf("bench_%d", time.Now().UnixNano())
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_, _ = admin.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		_ = admin.Close(ctx)
	})
	u := url.URL{Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Host: net.JoinHostPort(cfg.Host,
		strconv.Itoa(int(cfg.Port))), Path: name, RawQuery: "sslmode=disable"}
	dsn = u.String()
	return dsn, func() (n int64) {
		time.Sleep(1500 * time.Millisecond) // the server gathers statistics a little late
		if err := admin.QueryRow(ctx, "SELECT xact_commit FROM pg_stat_database WHERE datname = $1",
			name).Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
}

// inFlight runs b.N sagas, so many at a time.
func inFlight(b *testing.B, n int, commits func() int64, run func(i int64) error) {
	b.Helper()
	before := commits()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := run(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sagas/s")
	b.ReportMetric(float64(commits()-before)/float64(b.N), "commits/saga")
}

type trip struct{ Steps int }

// BenchmarkSaga runs sagas of four steps, which do nothing, on PostgreSQL.
func BenchmarkSaga(b *testing.B) {
	for _, n := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("inflight=%d/sillar", n), func(b *testing.B) {
			dsn, commits := database(b)
			ctx, stop := context.WithCancel(context.Background())
			db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{MaxConns: 32}))
			store := sagasql.Must(sagasql.New(db, sagasql.Config{}))
			if err := store.EnsureSchema(ctx); err != nil {
				b.Fatal(err)
			}
			step := func(_ context.Context, _ *saga.Call, t *trip) error { t.Steps++; return nil }
			def := saga.Define[trip]("trip", 1, saga.Step("a", step).Compensate(step), saga.Step("b", step).Compensate(step),
				saga.Pivot("c", step), saga.Retriable("d", step))
			o := saga.Must(saga.New(store, saga.Config{Concurrency: 2 * n, Logger: slog.New(slog.DiscardHandler)}, def))
			done := make(chan error, 1)
			go func() { done <- o.Run(ctx) }()
			inFlight(b, n, commits, func(i int64) error {
				h, err := def.Start(ctx, o, fmt.Sprint("s", i), trip{})
				if err != nil {
					return err
				}
				_, err = h.Wait(ctx)
				return err
			})
			stop()
			if err := <-done; err != nil {
				b.Error(err)
			}
			_ = db.Close()
		})
		b.Run(fmt.Sprintf("inflight=%d/dbos", n), func(b *testing.B) {
			dsn, commits := database(b)
			ctx, err := dbos.NewContext(context.Background(),
				dbos.Config{AppName: "bench", DatabaseURL: dsn + "&pool_max_conns=32", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			step := func(context.Context) (int, error) { return 1, nil }
			flow := func(c dbos.Context, _ int64) (int, error) {
				sum := 0
				for range 4 {
					n, err := dbos.RunAsStep(c, step)
					if err != nil {
						return 0, err
					}
					sum += n
				}
				return sum, nil
			}
			dbos.RegisterWorkflow(ctx, flow)
			if err := dbos.Launch(ctx); err != nil {
				b.Fatal(err)
			}
			inFlight(b, n, commits, func(i int64) error {
				h, err := dbos.RunWorkflow(ctx, flow, i)
				if err != nil {
					return err
				}
				_, err = h.GetResult()
				return err
			})
			_ = dbos.Shutdown(ctx, 5*time.Second)
		})
		b.Run(fmt.Sprintf("inflight=%d/go-workflows", n), func(b *testing.B) {
			dsn, commits := database(b)
			handle, err := sql.Open("pgx", dsn)
			if err != nil {
				b.Fatal(err)
			}
			handle.SetMaxOpenConns(32)
			pg := postgres.NewPostgresBackendWithDB(handle, postgres.WithApplyMigrations(true),
				postgres.WithBackendOptions(backend.WithLogger(slog.New(slog.DiscardHandler))))
			options := worker.DefaultOptions
			options.WorkflowPollers, options.ActivityPollers = 4, 4
			options.WorkflowPollingInterval, options.ActivityPollingInterval = 5*time.Millisecond, 5*time.Millisecond
			w := worker.New(pg, &options)
			activity := func(context.Context) (int, error) { return 1, nil }
			flow := func(ctx workflow.Context, _ int64) (int, error) {
				sum := 0
				for range 4 {
					n, err := workflow.ExecuteActivity[int](ctx, workflow.DefaultActivityOptions, "activity").Get(ctx)
					if err != nil {
						return 0, err
					}
					sum += n
				}
				return sum, nil
			}
			if err := errors.Join(w.RegisterWorkflow(flow, registry.WithName("flow")),
				w.RegisterActivity(activity, registry.WithName("activity"))); err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			if err := w.Start(ctx); err != nil {
				b.Fatal(err)
			}
			c := client.New(pg)
			inFlight(b, n, commits, func(i int64) error {
				in, err := c.CreateWorkflowInstance(ctx, client.WorkflowInstanceOptions{InstanceID: fmt.Sprint("w", i)}, "flow", i)
				if err != nil {
					return err
				}
				_, err = client.GetWorkflowResult[int](ctx, c, in, time.Minute)
				return err
			})
			stop()
			_ = w.WaitForCompletion()
			_ = handle.Close()
		})
	}
}
