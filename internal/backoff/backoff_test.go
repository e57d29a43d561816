package backoff_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/internal/backoff"
)

func TestDelayStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := backoff.Exponential{
			Initial:    time.Duration(rapid.Int64().Draw(t, "initial")),
			Max:        time.Duration(rapid.Int64().Draw(t, "max")),
			Multiplier: rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(1))).Draw(t, "multiplier"),
			NoJitter:   rapid.Bool().Draw(t, "noJitter"),
		}
		limit := e.Max
		if limit <= 0 {
			limit = backoff.DefaultMax
		}
		n := rapid.Int().Draw(t, "n")
		if d := e.Delay(n); d < 0 || d > limit {
			t.Fatalf("Delay(%d) = %v outside [0, %v]", n, d, limit)
		}
	})
}

func TestCeilingGrows(t *testing.T) {
	e := backoff.Exponential{Initial: time.Second, Max: 10 * time.Second, NoJitter: true}
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		if got := e.Delay(i + 1); got != want*time.Second {
			t.Errorf("Delay(%d) = %v, want %v", i+1, got, want*time.Second)
		}
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := backoff.Sleep(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Fatalf("Sleep: %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if err := backoff.Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
			t.Fatalf("past the deadline: %v after %v", err, time.Since(start))
		}
		why := errors.New("stop")
		cctx, ccancel := context.WithCancelCause(t.Context())
		go func() { time.Sleep(time.Second); ccancel(why) }()
		if err := backoff.Sleep(cctx, time.Minute); !errors.Is(err, why) {
			t.Fatalf("cancelled: %v", err)
		}
	})
}
