package breaker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// hang waits until the context ends, as a call to a slow service does.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// A deadline that a caller set too short says nothing about the service; one that gave it time does.
func TestShortDeadlinesOfCallersDoNotOpen(t *testing.T) {
	for name, c := range map[string]struct {
		short, given time.Duration
		failures     uint64
	}{
		"2 ms, by default":              {0, 2 * time.Millisecond, 0},
		"999 ms, by default":            {0, 999 * time.Millisecond, 0},
		"1 s, by default":               {0, time.Second, 1},
		"2 ms, where every one counts":  {-1, 2 * time.Millisecond, 1},
		"50 ms, where 20 ms are enough": {20 * time.Millisecond, 50 * time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.Must(breaker.New(breaker.Config{ShortDeadline: c.short}))
				for _, call := range []func(ctx context.Context) error{
					func(ctx context.Context) error { return b.Run(ctx, hang) },
					func(ctx context.Context) error {
						done, err := b.Allow(ctx)
						if err == nil {
							err = hang(ctx)
							done(err)
						}
						return err
					},
				} {
					before := b.Counts().Failures
					ctx, cancel := context.WithTimeout(t.Context(), c.given)
					err := call(ctx)
					cancel()
					if got := b.Counts().Failures - before; !errors.Is(err, context.DeadlineExceeded) || got != c.failures {
						t.Errorf("got %v and %d failures, want %d", err, got, c.failures)
					}
				}
			})
		})
	}
	t.Run("an error before the deadline counts", func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{}))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_ = b.Run(ctx, func(context.Context) error { return errDown })
		if got := b.Counts().Failures; got != 1 {
			t.Errorf("got %d failures, want 1", got)
		}
	})
}

// OpenFor doubles while probes fail, up to MaxOpenFor, and begins anew after a success.
func TestOpenForGrowsWhileProbesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1, OpenFor: 10 * time.Second, MaxOpenFor: time.Minute}))
		fail := func(context.Context) error { return errDown }
		for round := range 2 {
			_ = b.Run(t.Context(), fail)
			for i, want := range []time.Duration{10, 20, 40, 60, 60} {
				want *= time.Second
				got := b.RetryAfter()
				low, high := want, want+want/10
				if i == 0 {
					high = want
				}
				if want == time.Minute { // bounded, after the jitter too
					low, high = want-want/10, want
				}
				if got < low || got > high {
					t.Fatalf("round %d, opening %d: open for %s, want %s to %s", round, i, got, low, high)
				}
				time.Sleep(got)
				if i < 4 {
					_ = b.Run(t.Context(), fail)
				}
			}
			if err := b.Run(t.Context(), func(context.Context) error { return nil }); err != nil || b.State() != breaker.Closed {
				t.Fatalf("a probe that succeeds: %v, %s", err, b.State())
			}
		}
	})
}

// A Classify that returns no Outcome gives the probe's place back, and says so in the log.
func TestOutcomeOutOfRangeIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		out := breaker.Failure
		b := breaker.Must(breaker.New(breaker.Config{
			Failures: 1, OpenFor: time.Second, Retry: breaker.Retry{Attempts: 3},
			Logger:   slog.New(slog.NewTextHandler(&log, nil)),
			Classify: func(context.Context, error) breaker.Outcome { return out },
		}))
		_ = b.Run(t.Context(), func(context.Context) error { return errDown })
		time.Sleep(time.Second)
		for _, out = range []breaker.Outcome{-1, 3, 99} {
			calls := 0
			err := b.Run(t.Context(), func(context.Context) error { calls++; return errDown })
			if !errors.Is(err, errDown) || calls != 1 || b.State() != breaker.HalfOpen {
				t.Errorf("%s: got %v after %d calls, %s", out, err, calls, b.State())
			}
		}
		out = breaker.Success
		if err := b.Run(t.Context(), func(context.Context) error { return nil }); err != nil || b.State() != breaker.Closed {
			t.Errorf("the next probe: %v, %s", err, b.State())
		}
		if strings.Count(log.String(), "no Outcome") != 3 {
			t.Errorf("log: %s", &log)
		}
		if s := breaker.State(7).String(); s != "state(7)" {
			t.Errorf("an unknown state: %q", s)
		}
	})
}

// Keys that were never called are not refused because others failed.
func TestFailuresOfOthersDoNotRefuseNewKeys(t *testing.T) {
	r, err := breaker.NewRegistry(breaker.Config{Failures: 1}, 10)
	if err != nil {
		t.Fatal(err)
	}
	fail := func(context.Context) error { return errDown }
	for i := range 30 {
		_ = r.Get(string(rune('a'+i))).Run(t.Context(), fail)
	}
	for i := range 20 {
		if err := r.Get("healthy"+string(rune('a'+i))).Run(t.Context(),
			func(context.Context) error { return nil }); err != nil {
			t.Errorf("a key that was never called: %v", err)
		}
	}
	if err := r.Get("a").Run(t.Context(), fail); !errors.Is(err, breaker.ErrOpen) {
		t.Errorf("a key that has failed: got %v, want ErrOpen", err)
	}
}
