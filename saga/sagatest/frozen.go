package sagatest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// buffer is a bytes.Buffer that is safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Frozen checks that an orchestrator goes on within seconds after freeze has made the connections of the store silent
// for good, without an error, while sagas run; that a log line says so; and that what ran meanwhile ends. New
// connections must work.
func Frozen(t *testing.T, store saga.Store, freeze func()) {
	t.Helper()
	const sagas, within = 20, 20 * time.Second
	log := &buffer{}
	step := func(_ context.Context, _ *saga.Call, n *int) error { *n++; return nil }
	def := saga.Define("count", 1, saga.Step("a", step), saga.Step("b", step))
	o := saga.Must(saga.New(store, saga.Config{Lease: 4 * time.Second, Poll: 50 * time.Millisecond,
		StoreTimeout: 500 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(log, nil))}, def))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()

	var load sync.WaitGroup
	var frozen atomic.Bool
	var before, after atomic.Int32 // sagas that ended before, and that began after the connections froze
	warm := make(chan struct{})
	for w := range 4 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil && after.Load() < sagas; i++ {
				began := frozen.Load()
				id := fmt.Sprintf("%d-%d", w, i)
				h, err := def.Start(ctx, o, id, 0)
				if err != nil {
					continue // the store did not answer; it is seen below whether it was started
				}
				for n, err := h.Wait(ctx); err != nil || n != 2; n, err = h.Wait(ctx) {
					if !frozen.Load() || ctx.Err() != nil { // Wait reports that the store did not answer
						t.Errorf("%s: %d, %v", id, n, err)
						return
					}
				}
				if began {
					after.Add(1)
				} else if before.Add(1) == sagas {
					close(warm)
				}
			}
		})
	}
	select {
	case <-warm:
	case <-time.After(within):
		t.Fatalf("%d sagas ended within %v, before any connection froze", before.Load(), within)
	}
	freeze()
	frozen.Store(true)
	begin := time.Now()
	load.Wait()
	if took := time.Since(begin); took > within {
		t.Errorf("%d sagas ended %v after the connections froze, want at most %v", sagas, took, within)
	}
	t.Logf("%d sagas ended %v after the connections froze", sagas, time.Since(begin))
	for { // those whose first write was not answered, too
		left, err := o.Count(ctx, saga.Filter{Statuses: []saga.Status{saga.Running}})
		if err == nil && left == 0 {
			break
		}
		if time.Since(begin) > 2*within {
			t.Fatalf("%d sagas have not ended %v after the connections froze, %v", left, time.Since(begin), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "level=ERROR") && !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("logged %q, want the calls that did not answer", log)
	}
}
