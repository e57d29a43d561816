package sagasql_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// A process that listens is notified of each saga that another one ends.
func TestListenersAreNotifiedOfEnds(t *testing.T) {
	dsn, ctx := testenv.Postgres(t), t.Context()
	_, works := open(t, dsn)
	_, waits := open(t, dsn)
	if err := works.Heartbeat(ctx, "node", time.Minute); err != nil {
		t.Fatal(err)
	}
	var sent int
	end := func(sagas int) (ids []string) {
		t.Helper()
		for range sagas {
			sent++
			id := fmt.Sprint(strings.Repeat("x", 180), sent)
			now := time.Now()
			r, _, err := works.Insert(ctx, saga.Record{ID: id, Name: "x", Version: 1, Status: saga.Running,
				State: []byte("1"), WakeAt: now, Owner: "node", Fence: 1})
			if err == nil {
				r.Status, r.Owner = saga.Completed, ""
				err = works.Save(ctx, r)
			}
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		return ids
	}
	lctx, stop := context.WithCancel(ctx)
	heard, done := make(chan string, 1000), make(chan error, 1)
	go func() {
		done <- waits.Listen(lctx, func(ids []string) {
			for _, id := range ids {
				heard <- id
			}
		})
	}()
	for begin := time.Now(); ; { // the heartbeat finds that a process listens
		if time.Since(begin) > 20*time.Second {
			t.Fatal("no notification within 20s")
		}
		if err := works.Heartbeat(ctx, "node", time.Minute); err != nil {
			t.Fatal(err)
		}
		end(1)
		select {
		case <-heard:
		case <-time.After(100 * time.Millisecond):
			continue
		}
		break
	}
	for len(heard) > 0 {
		<-heard
	}
	want := map[string]bool{}
	for _, id := range end(100) { // more than one notification holds
		want[id] = true
	}
	for len(want) > 0 {
		select {
		case id := <-heard:
			delete(want, id)
		case <-time.After(30 * time.Second):
			t.Fatalf("no notification of %d of 100 sagas", len(want))
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("Listen: %v", err)
	}
}

// Behind a pooler callers still learn of ends, and one log line says why it takes longer.
func TestWaitBehindAPooler(t *testing.T) {
	direct := testenv.Postgres(t)
	pooled := sqldb.Must(sqldb.Open(t.Context(), testenv.PgBouncer(t, direct), sqldb.Config{}))
	t.Cleanup(func() { _ = pooled.Close() })
	_, works := open(t, direct)
	waits := sagasql.Must(sagasql.New(pooled, sagasql.Config{Prefix: "own_"}))
	if err := waits.Listen(t.Context(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Listen: %v, want errors.ErrUnsupported", err)
	}
	log := &buffer{}
	def := saga.Define("nap", 1, saga.Sleep[int]("a", time.Second))
	o := saga.Must(saga.New(works, saga.Config{Poll: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, def))
	client := saga.Must(saga.New(waits, saga.Config{Logger: slog.New(slog.NewTextHandler(log, nil))}, def))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			h, err := def.Start(ctx, client, fmt.Sprint(i), 0)
			if err == nil {
				_, err = h.Wait(ctx)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "a pooler is between"); n != 1 {
		t.Errorf("%d log lines, want 1: %s", n, log)
	}
}
