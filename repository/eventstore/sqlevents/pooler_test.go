package sqlevents_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/eventstore/eventstoretest"
	"github.com/sillar-go/sillar/repository/eventstore/sqlevents"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Behind a pooler in transaction mode the store keeps its promises; Listen says once that it cannot listen.
func TestStoreWorksBehindAPooler(t *testing.T) {
	dbs := map[eventstore.Store]*sqldb.DB{}
	eventstoretest.Run(t, func(t testing.TB) eventstore.Store {
		db, s := open(t, testenv.PgBouncer(t, testenv.Postgres(t)), sqlevents.Config{})
		dbs[s] = db
		return s
	}, eventstoretest.Features{InTx: func(ctx context.Context, s eventstore.Store, fn func(context.Context) error) error {
		return dbs[s].InTx(ctx, fn)
	}})

	var log bytes.Buffer
	_, s := open(t, testenv.PgBouncer(t, testenv.Postgres(t)),
		sqlevents.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	if err := s.Listen(ctx); err != nil || ctx.Err() == nil {
		t.Errorf("Listen returned %v", err)
	}
	if n := strings.Count(log.String(), "pooler"); n != 1 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("%d lines about the pooler, want 1:\n%s", n, log.String())
	}
}
