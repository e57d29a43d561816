package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

func wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestDeadlineBoundsAllAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := breaker.Must(breaker.New(breaker.Config{Timeout: 2 * time.Second, Deadline: 5 * time.Second, Failures: -1,
			Retry: breaker.Retry{Attempts: 9, Backoff: breaker.Exponential(1, 1)}}))
		n := 0
		err := b.Run(t.Context(), func(ctx context.Context) error { n++; return wait(ctx) })
		if took := time.Since(start); n != 3 || took != 5*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%d attempts, %v, %v", n, took, err)
		}
		if errors.Is(err, breaker.ErrTimeout) {
			t.Fatalf("the deadline ended the last attempt, not its timeout: %v", err)
		}
		if c := b.Counts(); c.Failures != 3 {
			t.Fatalf("%+v", c)
		}

		// The pause would pass it: no sleep.
		start = time.Now()
		err = b.Run(t.Context(), func(context.Context) error { return wantsPause(5*time.Second + 1) })
		var gaveUp *breaker.RetryError
		if !errors.As(err, &gaveUp) || gaveUp.Reason != context.DeadlineExceeded || time.Since(start) != 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}

		// Waiting for a place does not pass it either.
		b = breaker.Must(breaker.New(breaker.Config{Deadline: time.Second, Bulkhead: 1, BulkheadWait: time.Hour}))
		done, _ := b.Allow(t.Context())
		if err := b.Run(t.Context(), succeed); !errors.Is(err, breaker.ErrFull) || time.Since(start) != time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		done(nil)
	})
}

// lateTimer is a context whose deadline has passed, and whose timer has not noticed.
type lateTimer struct{ context.Context }

func (lateTimer) Deadline() (time.Time, bool) { return time.Now(), true }

func TestDeadlinePastAtEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{}))
		err := b.Run(lateTimer{t.Context()}, func(context.Context) error { t.Error("it ran"); return nil })
		if !errors.Is(err, context.DeadlineExceeded) || b.Counts() != (breaker.Counts{}) {
			t.Fatalf("%v, %+v", err, b.Counts())
		}
	})
}

func TestTheCallersEarlierDeadlineNeedsNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Deadline: time.Minute}))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := b.Run(ctx, func(inner context.Context) error {
			if inner != ctx {
				return errors.New("another context")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// A peer that knows the deadline may report its end before our own timer fires.
func TestATimeoutToldByThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Timeout: time.Second, Failures: -1}))
		for range 100 { // which of the two timers is first is chance
			reported := time.After(time.Second)
			err := b.Run(t.Context(), func(context.Context) error { <-reported; return errDown })
			if !errors.Is(err, breaker.ErrTimeout) || !errors.Is(err, errDown) {
				t.Fatalf("at the timeout: %v", err)
			}
		}
		if !errors.Is(breaker.ErrTimeout, context.DeadlineExceeded) {
			t.Fatal("ErrTimeout is not DeadlineExceeded")
		}
		if err := b.Run(t.Context(),
			func(context.Context) error { time.Sleep(time.Second - 1); return errDown }); err != errDown {
			t.Fatalf("before the timeout: %v", err)
		}
	})
}

func TestCancellationWithACause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Bulkhead: 1, BulkheadWait: time.Hour, Failures: -1,
			Retry: breaker.Retry{Attempts: 2, Backoff: breaker.Exponential(time.Hour, time.Hour)}}))
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1, func() { cancel(errDown) })
		failed := errors.New("failed")
		err := b.Run(ctx, func(context.Context) error { return failed }) // cancelled in the pause
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errDown) || !errors.Is(err, failed) {
			t.Fatalf("in the pause: %v", err)
		}
		if err = b.Run(ctx, succeed); !errors.Is(err, context.Canceled) || !errors.Is(err, errDown) {
			t.Fatalf("at entry: %v", err)
		}
		done, _ := b.Allow(t.Context())
		ctx, cancel = context.WithCancelCause(t.Context())
		time.AfterFunc(1, func() { cancel(errDown) })
		if err = b.Run(ctx, succeed); !errors.Is(err, context.Canceled) || !errors.Is(err, errDown) {
			t.Fatalf("waiting for a place: %v", err)
		}
		done(nil)
		if c := b.Counts(); c.Failures != 1 {
			t.Fatalf("%+v", c)
		}
	})
}

func TestIsRejectionHoldsForCallsNotTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := breaker.Must(breaker.New(breaker.Config{Name: "inner", Failures: 1, Timeout: time.Second,
			Retry: breaker.Retry{Attempts: 2}}))
		tried := inner.Run(t.Context(), wait) // opens, so that the retry is refused
		if breaker.IsRejection(tried) || !errors.Is(tried, breaker.ErrOpen) || !errors.Is(tried, breaker.ErrTimeout) {
			t.Fatalf("a call that was tried: %v", tried)
		}
		err := inner.Run(t.Context(), succeed)
		if !breaker.IsRejection(err) || !breaker.IsRejection(fmt.Errorf("outer: %w", err)) ||
			!breaker.IsRejection(errors.Join(errDown, err)) {
			t.Fatalf("a call that was not: %v", err)
		}
		if errors.Is(err, breaker.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("it looks like a timeout, which another call had: %v", err)
		}
		for _, e := range []error{nil, errDown, context.Canceled, breaker.ErrTimeout} {
			if breaker.IsRejection(e) {
				t.Errorf("%v is a rejection", e)
			}
		}

		// A rejection within a call is no failure of what is called, and is not retried.
		outer := breaker.Must(breaker.New(breaker.Config{Name: "outer", Failures: 1, Retry: breaker.Retry{Attempts: 3}}))
		n := 0
		err = outer.Run(t.Context(), func(ctx context.Context) error { n++; return inner.Run(ctx, succeed) })
		if n != 1 || !breaker.IsRejection(err) || outer.Counts() != (breaker.Counts{Ignored: 1}) {
			t.Fatalf("%d attempts, %v, %+v", n, err, outer.Counts())
		}
		// That its attempts failed before is.
		if err = outer.Run(t.Context(), func(context.Context) error { return tried }); outer.State() != breaker.Open {
			t.Fatalf("%v leaves it %v", err, outer.State())
		}
	})
}

func TestPausesOfARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checkPauses(t)
		// Initial above the default Max raises it.
		var longest time.Duration
		for n := range 100 {
			longest = max(longest, breaker.Pause(breaker.Retry{Attempts: 2, Backoff: breaker.Exponential(time.Hour,
				10*time.Second)}, n%4+1))
		}
		if longest > time.Hour || longest < time.Minute {
			t.Fatal(longest)
		}
	})
}

// checkPauses counts how the pauses of retries are drawn.
func checkPauses(t *testing.T) {
	t.Helper()
	b := breaker.Must(breaker.New(breaker.Config{Failures: -1, Retry: breaker.Retry{Attempts: 4, Budget: -1}}))
	low, high := 0, 0
	for range 50 {
		start, last := time.Now(), time.Now()
		var pauses []time.Duration
		_ = b.Run(t.Context(), func(context.Context) error {
			pauses, last = append(pauses, time.Since(last)), time.Now()
			return errDown
		})
		for n, ceiling := range []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond,
			400 * time.Millisecond}[:len(pauses)] {
			if pauses[n] > ceiling {
				t.Fatalf("pauses %v", pauses)
			}
			if pauses[n] < ceiling/2 {
				low++
			} else if n > 0 {
				high++
			}
		}
		if last.Sub(start) != time.Since(start) {
			t.Fatal("a pause after the last attempt")
		}
	}
	if low < 40 || high < 40 {
		t.Fatalf("not evenly drawn: %d pauses below half of the ceiling, %d above", low, high)
	}
}

func TestClassifyIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		b := breaker.Must(breaker.New(breaker.Config{Failures: -1, Retry: breaker.Retry{Attempts: 2},
			Classify: func(ctx context.Context, err error) breaker.Outcome {
				asked++
				return breaker.DefaultClassify(ctx, err)
			}}))
		runs(b, 1, fail)
		if asked != 2 {
			t.Fatalf("asked %d times about two attempts", asked)
		}
	})
}

// Everything on costs one context.
func TestFullStackAllocations(t *testing.T) {
	b := breaker.Must(breaker.New(breaker.Config{Deadline: time.Minute, Retry: breaker.Retry{Attempts: 3},
		FailureRate: 0.5, Rate: 1e9, Burst: 1e9, Bulkhead: 10}))
	ctx := context.Background()
	fn := func(context.Context) (int, error) { return 1, nil }
	if n := testing.AllocsPerRun(1000, func() { _, _ = breaker.Do(ctx, b, fn) }); n > 4 {
		t.Errorf("%v allocations, want at most 4", n)
	}
}
