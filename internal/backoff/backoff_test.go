package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/internal/backoff"
)

func TestDelayStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		initial := time.Duration(rapid.Int64().Draw(t, "initial"))
		limit := time.Duration(rapid.Int64().Draw(t, "max"))
		n := rapid.Int().Draw(t, "n")
		most := max(limit, initial)
		if initial <= 0 {
			most = max(limit, 100*time.Millisecond)
		}
		if d := backoff.Exponential(initial, limit).Delay(n); d < 0 || d > most {
			t.Fatalf("Exponential(%v, %v).Delay(%d) = %v, want at most %v", initial, limit, n, d, most)
		}
		if d := backoff.Constant(initial).Delay(n); d != max(initial, 0) {
			t.Fatalf("Constant(%v).Delay(%d) = %v", initial, n, d)
		}
	})
}

func TestCeilingDoublesUpToMax(t *testing.T) {
	b := backoff.Exponential(time.Second, 10*time.Second)
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		if got := b.Ceiling(i + 1); got != want*time.Second {
			t.Errorf("Ceiling(%d) = %v, want %v", i+1, got, want*time.Second)
		}
	}
}

func TestZeroBackoffPauses(t *testing.T) {
	if got := (backoff.Backoff{}).Ceiling(1); got != 100*time.Millisecond {
		t.Errorf("Ceiling(1) = %v, want 100ms", got)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
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
