package breaker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// A probe that the bulkhead, the rate limit or the caller's end turns away gives its place back.
func TestAProbeThatIsTurnedAway(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  breaker.Config
		want error
	}{
		"full":      {breaker.Config{Bulkhead: 1}, breaker.ErrFull},
		"limited":   {breaker.Config{Rate: 0.01}, breaker.ErrLimited},
		"cancelled": {breaker.Config{Bulkhead: 1, BulkheadWait: time.Hour}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Failures, c.cfg.ProbeTimeout = 1, -1
				b := breaker.Must(breaker.New(c.cfg))
				var done func(error)
				if c.cfg.Bulkhead > 0 {
					done, _ = b.Allow(t.Context())
				}
				if c.cfg.Rate > 0 {
					runs(b, 1, fail)
				} else { // the place is taken by a call from before
					breaker.TripFor(b, errDown)
				}
				want(t, b, breaker.Open)
				time.Sleep(30 * time.Second)
				for range 3 {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Second, cancel)
					if err := b.Run(ctx, succeed); !errors.Is(err, c.want) || errors.Is(err, breaker.ErrOpen) {
						t.Fatalf("%v, want %v", err, c.want)
					}
					cancel()
				}
				want(t, b, breaker.HalfOpen)
				if done != nil {
					done(nil)
				}
				time.Sleep(100 * time.Second)
				if err := b.Run(t.Context(), succeed); err != nil {
					t.Fatalf("the next probe: %v", err)
				}
				want(t, b, breaker.Closed)
			})
		})
	}
}

func TestOpenedByHandWhenObserving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1, ObserveOnly: true}))
		runs(b, 1, fail)
		b.Open()
		time.Sleep(time.Hour)
		runs(b, 3, succeed)
		want(t, b, breaker.Open)
		if b.RetryAfter() != 0 {
			t.Fatal(b.RetryAfter())
		}
	})
}

// Without an OnCall hook calls do not fill the memory, and changes of state are still reported.
func TestHooksThatAreStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		calls, changes := 0, 0
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1, Timeout: -1,
			OnCall:        func(breaker.Call) { <-release; calls++ },
			OnStateChange: func(breaker.StateChange) { changes++ }}))
		runs(b, 70_000, succeed)
		runs(b, 1, fail)
		b.Close()
		close(release)
		synctest.Wait()
		if calls < 32_768 || calls > 65_537 || changes != 2 {
			t.Fatalf("reported %d calls and %d changes", calls, changes)
		}
	})
}
