package platform

import (
	"context"
	"log/slog"
	"time"
)

// Retention of records that detect duplicates.
const (
	// KeepRequests is for idempotency keys: longer than any client repeats a request.
	KeepRequests = 30 * 24 * time.Hour
	// KeepSagas is for sagas that have ended: as long as operators may inspect them.
	KeepSagas = 90 * 24 * time.Hour
	// KeepMarks is for the marks of barriers: longer than a saga may wait for an operator.
	KeepMarks = 365 * 24 * time.Hour
)

// Hourly calls forget every hour while the service runs. forget returns the number of removed rows.
func (s *Service) Hourly(what string, forget func(ctx context.Context) (int64, error)) {
	s.Go("forget "+what, func(ctx context.Context) error {
		hourly(ctx, s.Log, what, forget)
		return nil
	})
}

func hourly(ctx context.Context, log *slog.Logger, what string, forget func(ctx context.Context) (int64, error)) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := forget(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			log.WarnContext(ctx, "old rows could not be removed: trying again in an hour", "what", what, "error", err)
		case n > 0:
			log.InfoContext(ctx, "old rows were removed", "what", what, "count", n)
		}
	}
}
