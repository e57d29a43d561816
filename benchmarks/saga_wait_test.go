package benchmarks

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// polled is a store without notifications.
type polled struct{ saga.Store }

// BenchmarkSagaWaitElsewhere measures how long after its end a saga that another process has run is returned by Wait,
// with 1,000 callers that wait, and how many statements the process that waits makes meanwhile.
func BenchmarkSagaWaitElsewhere(b *testing.B) {
	for _, notified := range []bool{false, true} {
		b.Run(fmt.Sprintf("notified=%v", notified), func(b *testing.B) { waitElsewhere(b, notified) })
	}
}

func waitElsewhere(b *testing.B, notified bool) {
	dsn, commits := database(b)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	open := func() *sagasql.Store {
		db := sqldb.Must(sqldb.Open(ctx, dsn, sqldb.Config{}))
		b.Cleanup(func() { _ = db.Close() })
		return sagasql.Must(sagasql.New(db, sagasql.Config{}))
	}
	runs, waits := open(), open()
	if err := runs.EnsureSchema(ctx); err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	ended := map[string]time.Time{}
	def := saga.Define("approve", 1, saga.Await("go", func(context.Context, *saga.Call, *trip, int) error { return nil }))
	quiet := slog.New(slog.DiscardHandler)
	o := saga.Must(saga.New(runs, saga.Config{Logger: quiet, ObserveInterval: -1,
		OnChange: func(_ context.Context, r saga.Record) {
			if r.Status.Ended() {
				mu.Lock()
				ended[r.ID] = time.Now()
				mu.Unlock()
			}
		}}, def))
	var store saga.Store = waits
	if !notified {
		store = polled{waits}
	}
	web := saga.Must(saga.New(store, saga.Config{Logger: quiet}, def))
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()

	const waiters = 1000
	var late []time.Duration
	var wg sync.WaitGroup
	wait := func(id string) {
		h, err := def.Start(ctx, web, id, trip{})
		if err != nil {
			b.Error(err)
			return
		}
		wg.Go(func() {
			_, err := h.Wait(ctx)
			mu.Lock()
			defer mu.Unlock()
			late = append(late, time.Since(ended[id]))
			if err != nil {
				b.Error(err)
			}
		})
	}
	for i := range waiters + b.N {
		wait(fmt.Sprint(i))
	}
	time.Sleep(5 * time.Second) // a heartbeat finds that a process listens
	before := commits()
	b.ResetTimer()
	for i := range b.N {
		if err := def.Signal(ctx, o, fmt.Sprint(i), "go", 1); err != nil {
			b.Fatal(err)
		}
		time.Sleep(37 * time.Millisecond) // so that ends are spread over the polls
	}
	b.StopTimer()
	spent := b.Elapsed().Seconds()
	made := commits() - before
	mu.Lock()
	list := slices.Sorted(slices.Values(late))
	mu.Unlock()
	if len(list) > 0 {
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, "ms-median")
		b.ReportMetric(float64(list[len(list)*99/100].Microseconds())/1000, "ms-p99")
	}
	b.ReportMetric(float64(made)/spent, "commits/s")
	for i := b.N; i < waiters+b.N; i++ {
		if err := def.Signal(ctx, o, fmt.Sprint(i), "go", 1); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	stop()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
