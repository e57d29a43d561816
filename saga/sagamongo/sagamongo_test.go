package sagamongo_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamongo"
	"github.com/sillar-go/sillar/saga/sagatest"
)

func open(t testing.TB) *sagamongo.Store {
	t.Helper()
	return sagamongo.Must(sagamongo.New(t.Context(), testenv.MongoDatabase(t, testenv.Mongo(t)),
		sagamongo.Config{Prefix: "own_"}))
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sagatest.Run(t, func(t testing.TB) saga.Store { return open(t) }, sagatest.Features{TooLarge: 17 << 20})
}

// Two orchestrators on one store: each saga runs once.
func TestTwoOrchestratorsShareSagas(t *testing.T) {
	store := open(t)
	step := func(_ context.Context, _ *saga.Call, n *int) error { *n++; return nil }
	def := saga.Define[int]("count", 1, saga.Step("a", step), saga.Step("b", step), saga.Pivot("c", step))
	ctx, stop := context.WithCancel(t.Context())
	var os []*saga.Orchestrator
	done := make(chan error, 2)
	for range 2 {
		o := saga.Must(saga.New(store, saga.Config{Poll: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, def))
		os = append(os, o)
		go func() { done <- o.Run(ctx) }()
	}
	var hs []*saga.Handle[int]
	for i := range 20 {
		h, err := def.Start(ctx, os[i%2], string(rune('a'+i)), 0)
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
	}
	for _, h := range hs {
		if n, err := h.Wait(ctx); err != nil || n != 3 {
			t.Errorf("%s: %d, %v", h.ID(), n, err)
		}
	}
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
