package breaker_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/breaker"
)

func TestOutcomesAreClassified(t *testing.T) {
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		ctx     func(context.Context) (context.Context, context.CancelFunc)
		fn      func(context.Context) error
		ran     bool
		outcome breaker.Counts
		is      error
	}{
		"the caller cancels": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, wait, true, breaker.Counts{Ignored: 1}, context.Canceled},
		"a deadline past at entry": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithDeadline(ctx, time.Now().Add(-1))
		}, fail, false, breaker.Counts{}, context.DeadlineExceeded},
		"the caller's deadline in mid-flight": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, wait, true, breaker.Counts{Failures: 1, InARow: 1}, context.DeadlineExceeded},
		"the breaker's own timeout": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Hour)
		}, wait, true, breaker.Counts{Failures: 1, InARow: 1}, breaker.ErrTimeout},
		"success": {context.WithCancel, succeed, true, breaker.Counts{Successes: 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.Must(breaker.New(breaker.Config{}))
				ctx, cancel := c.ctx(t.Context())
				defer cancel()
				ran := false
				err := b.Run(ctx, func(ctx context.Context) error { ran = true; return c.fn(ctx) })
				if ran != c.ran || !errors.Is(err, c.is) || b.Counts() != c.outcome {
					t.Fatalf("ran %v, %v, %+v", ran, err, b.Counts())
				}
				if c.is == breaker.ErrTimeout && !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("ErrTimeout is not DeadlineExceeded: %v", err)
				}
			})
		})
	}
}

func TestRejectionsCountAsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Bulkhead: 1, BulkheadWait: time.Second, Failures: 1,
			Retry: breaker.Retry{Attempts: 5}}))
		done, err := b.Allow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := b.Run(t.Context(), succeed); !errors.Is(err, breaker.ErrFull) || time.Since(start) != time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		go func() { time.Sleep(time.Second / 2); done(nil); done(errDown) }()
		if err := b.Run(t.Context(), succeed); err != nil {
			t.Fatalf("a place came free: %v", err)
		}
		want(t, b, breaker.Closed)

		l := breaker.Must(breaker.New(breaker.Config{Rate: 2, Failures: 1}))
		runs(l, 2, succeed)
		if err := l.Run(t.Context(), succeed); !errors.Is(err, breaker.ErrLimited) {
			t.Fatalf("third at once: %v", err)
		}
		want(t, l, breaker.Closed)
		time.Sleep(time.Second / 2)
		if err := l.Run(t.Context(), succeed); err != nil {
			t.Fatalf("half a second later: %v", err)
		}
	})
}

func TestRetryMakesTheGivenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Failures: -1, Retry: breaker.Retry{Attempts: 3}}))
		n := 0
		v, err := breaker.Do(t.Context(), b, func(context.Context) (int, error) {
			if n++; n < 3 {
				return 0, errDown
			}
			return n, nil
		})
		if v != 3 || err != nil {
			t.Fatalf("%d, %v", v, err)
		}

		n = 0
		var gaveUp *breaker.RetryError
		err = b.Run(t.Context(), func(context.Context) error { n++; return errDown })
		if n != 3 || !errors.As(err, &gaveUp) || gaveUp.Attempts != 3 || !errors.Is(err, errDown) ||
			!errors.Is(err, breaker.ErrExhausted) {
			t.Fatalf("%d attempts: %v", n, err)
		}

		n = 0
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if err = b.Run(cancelled, func(context.Context) error { n++; return errDown }); n != 0 ||
			!errors.Is(err, context.Canceled) {
			t.Fatalf("%d attempts on a cancelled context: %v", n, err)
		}
	})
}

type wantsPause time.Duration

func (w wantsPause) Error() string             { return "later" }
func (w wantsPause) RetryAfter() time.Duration { return time.Duration(w) }

func TestRetryStopsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The first failure opens the breaker: the retry returns at once.
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1, Retry: breaker.Retry{Attempts: 3,
			Backoff: breaker.Exponential(time.Second, 10*time.Second)}}))
		start := time.Now()
		err := b.Run(t.Context(), fail)
		if !errors.Is(err, breaker.ErrOpen) || !errors.Is(err, errDown) || time.Since(start) != 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		// The pause that was asked for passes the deadline.
		b = breaker.Must(breaker.New(breaker.Config{Retry: breaker.Retry{Attempts: 3}}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = b.Run(ctx, func(context.Context) error { return wantsPause(time.Hour) })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		n := 0
		b = breaker.Must(breaker.New(breaker.Config{Retry: breaker.Retry{Attempts: 3, If: func(error) bool {
			return false
		}}}))
		if err := b.Run(t.Context(), func(context.Context) error { n++; return errDown }); n != 1 || err != errDown {
			t.Fatalf("If said no: %d attempts, %v", n, err)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Failures: -1, Retry: breaker.Retry{Attempts: 4,
			Backoff: breaker.Exponential(1, 1)}}))
		attempts, budget := 0, 0
		for range 1000 {
			err := b.Run(t.Context(), func(context.Context) error { attempts++; return errDown })
			if errors.Is(err, breaker.ErrBudget) {
				budget++
			}
		}
		if attempts < 1090 || attempts > 1120 || budget < 800 {
			t.Fatalf("%d attempts for 1000 calls, %d stopped by the budget", attempts, budget)
		}
	})
}

// No Config makes a hot loop, a negative pause, or one above Max.
func TestPausesStayInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		initial := time.Duration(rapid.Int64Range(1, math.MaxInt64/2).Draw(t, "initial"))
		limit := initial + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "over"))
		r := breaker.Retry{
			Attempts: rapid.IntRange(2, 40).Draw(t, "attempts"),
			Backoff:  breaker.Exponential(initial, limit),
			Budget:   -1,
		}
		for n := range 40 {
			if d := breaker.Pause(r, n); d <= 0 || d > limit {
				t.Fatalf("pause %d is %v, want at most %v", n, d, limit)
			}
		}
	})
}

func TestFallbackAnswersRejectedCalls(t *testing.T) {
	b := breaker.Must(breaker.New(breaker.Config{}))
	v, err := breaker.DoOr(t.Context(), b, func(context.Context) (string, error) { return "", errDown },
		func(_ context.Context, err error) (string, error) {
			if err != errDown {
				t.Errorf("the fallback sees %v", err)
			}
			return "cached", nil
		})
	if v != "cached" || err != nil {
		t.Fatalf("%q, %v", v, err)
	}
}

func TestHooksSeeEachChangeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var reported []string
		var changes []breaker.StateChange
		var b *breaker.Breaker
		b = breaker.Must(breaker.New(breaker.Config{Failures: 3, OpenFor: 24 * time.Hour,
			OnCall: func(c breaker.Call) {
				mu.Lock()
				reported = append(reported, c.Outcome.String()+c.Rejected)
				n := len(reported)
				mu.Unlock()
				switch n {
				case 1:
					panic("a hook that panics")
				case 2:
					runtime.Goexit()
				case 3:
					time.Sleep(time.Hour) // delays no caller
				}
			},
			OnStateChange: func(c breaker.StateChange) {
				if b.State() != breaker.Open { // a hook may call the breaker
					t.Error("the hook sees another state")
				}
				mu.Lock()
				reported, changes = append(reported, c.To.String()), append(changes, c)
				mu.Unlock()
			},
		}))
		start := time.Now()
		runs(b, 1, succeed)
		runs(b, 3, fail)
		runs(b, 1, fail)
		if time.Since(start) != 0 {
			t.Fatal("a hook delayed the calls")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if w := []string{"success", "failure", "failure", "failure", "open", "ignoreopen"}; !slices.Equal(reported, w) {
			t.Fatalf("reported %q, want %q", reported, w)
		}
		c := changes[0]
		if c.From != breaker.Closed || c.Err != errDown ||
			c.Counts != (breaker.Counts{Successes: 1, Failures: 3, InARow: 3}) {
			t.Fatalf("change: %+v", c)
		}
	})
}
