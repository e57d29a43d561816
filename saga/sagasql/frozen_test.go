package sagasql_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
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

// Connections that go silent without an error hold up nothing for longer than StoreTimeout, and a log line says so.
func TestFrozenConnectionsAreReplaced(t *testing.T) {
	dsn, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	var epoch atomic.Int32 // connections of an earlier one are silent
	proxy := faultproxy.New(t, dsn.Host)
	proxy.Filter(func(bool) faultproxy.Filter {
		mine := epoch.Load()
		return func(piece []byte) (pass int, cut bool) {
			if mine != epoch.Load() {
				return 0, false
			}
			return len(piece), false
		}
	})
	dsn.Host = proxy.Addr()
	db := sqldb.Must(sqldb.Open(t.Context(), dsn.String(), sqldb.Config{}))
	t.Cleanup(func() { proxy.Cut(); _ = db.Close() })
	store := sagasql.Must(sagasql.New(db, sagasql.Config{}))
	if err := store.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	log := &buffer{}
	def := saga.Define("count", 1, saga.Step("a", func(_ context.Context, _ *saga.Call, n *int) error {
		*n++
		return nil
	}))
	o := saga.Must(saga.New(store, saga.Config{Lease: 4 * time.Second, Poll: 50 * time.Millisecond,
		StoreTimeout: 500 * time.Millisecond,
		Logger:       slog.New(slog.NewTextHandler(log, nil))}, def))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	h, err := def.Start(ctx, o, "before", 0)
	if err == nil {
		_, err = h.Wait(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	epoch.Add(1)
	begin := time.Now()
	for {
		if h, err = def.Start(ctx, o, "after", 0); err == nil {
			break
		}
		if time.Since(begin) > 15*time.Second {
			t.Fatalf("no saga could be started: %v", err)
		}
	}
	if _, err := h.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("ended %v after the connections froze", time.Since(begin))
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("a saga ended %v after the connections froze", took)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("drained after %v", time.Since(begin))
	if !strings.Contains(log.String(), "level=ERROR") && !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("logged %q, want the calls that did not answer", log)
	}
}
