package breaker_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/breaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

func fail(context.Context) error    { return errDown }
func succeed(context.Context) error { return nil }

func runs(b *breaker.Breaker, n int, fn func(context.Context) error) {
	for range n {
		_ = b.Run(context.Background(), fn)
	}
}

func want(t *testing.T, b *breaker.Breaker, s breaker.State) {
	t.Helper()
	if got := b.State(); got != s {
		t.Fatalf("%s, want %s", got, s)
	}
}

func TestOpensProbesAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Name: "billing", MaxOpenFor: 30 * time.Second}))
		runs(b, 4, fail)
		runs(b, 1, succeed)
		runs(b, 4, fail)
		want(t, b, breaker.Closed)
		runs(b, 1, fail)
		want(t, b, breaker.Open)

		time.Sleep(10 * time.Second)
		ran := false
		err := b.Run(t.Context(), func(context.Context) error { ran = true; return nil })
		var open *breaker.OpenError
		if !errors.As(err, &open) || open.Name != "billing" || open.RetryAfter != 20*time.Second || open.LastErr != errDown {
			t.Fatalf("rejection: %#v", err)
		}
		if ran || !errors.Is(err, breaker.ErrOpen) || !errors.Is(err, gobreaker.ErrOpenState) || !breaker.IsRejection(err) {
			t.Fatalf("ran %v, %v", ran, err)
		}
		if b.RetryAfter() != 20*time.Second {
			t.Fatalf("RetryAfter %v", b.RetryAfter())
		}

		time.Sleep(20 * time.Second) // exactly when RetryAfter said
		runs(b, 1, fail)
		want(t, b, breaker.Open)
		time.Sleep(30 * time.Second)
		if err := b.Run(t.Context(), succeed); err != nil {
			t.Fatalf("probe: %v", err)
		}
		want(t, b, breaker.Closed)
	})
}

func TestRateCountsCallsLongerThanTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Timeout: -1, Failures: -1, FailureRate: 0.5, MinCalls: 10,
			Window: 10 * time.Second}))
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { runs(b, 1, func(context.Context) error { time.Sleep(time.Minute); return errDown }) })
		}
		all.Wait()
		want(t, b, breaker.Open)
	})
}

func TestFailureAndSlowRatesOpen(t *testing.T) {
	slow := func(context.Context) error { time.Sleep(6 * time.Second); return nil }
	for name, c := range map[string]struct {
		cfg   breaker.Config
		calls func(*breaker.Breaker)
		want  breaker.State
	}{
		"under the minimum": {breaker.Config{FailureRate: 0.5}, func(b *breaker.Breaker) { runs(b, 19, fail) },
			breaker.Closed},
		"at the minimum": {breaker.Config{FailureRate: 0.5}, func(b *breaker.Breaker) { runs(b, 20, fail) }, breaker.Open},
		"under the rate": {breaker.Config{FailureRate: 0.5}, func(b *breaker.Breaker) {
			runs(b, 13, succeed)
			runs(b, 12, fail)
		}, breaker.Closed},
		"over the rate": {breaker.Config{FailureRate: 0.5}, func(b *breaker.Breaker) {
			runs(b, 12, succeed)
			runs(b, 12, fail)
		}, breaker.Open},
		"out of the window": {breaker.Config{FailureRate: 0.5}, func(b *breaker.Breaker) {
			runs(b, 15, fail)
			time.Sleep(time.Minute)
			runs(b, 15, fail)
		}, breaker.Closed},
		"slow": {breaker.Config{SlowRate: 0.5, MinCalls: 4}, func(b *breaker.Breaker) {
			runs(b, 2, succeed)
			runs(b, 2, slow)
		}, breaker.Open},
		"slow and off": {breaker.Config{SlowRate: 0.5, MinCalls: 4, SlowCall: -1}, func(b *breaker.Breaker) {
			runs(b, 5, slow)
		}, breaker.Closed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Failures = -1
				b := breaker.Must(breaker.New(c.cfg))
				c.calls(b)
				want(t, b, c.want)
			})
		})
	}
}

// A result that arrives in a later state than the one that admitted its call must change nothing there.
func TestResultsOfEarlierStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1}))
		var closed, closed2 []func(error)
		for range 5 {
			done, _ := b.Allow(t.Context())
			closed = append(closed, done)
		}
		runs(b, 1, fail)
		for _, done := range closed[:2] {
			done(nil)
		}
		want(t, b, breaker.Open)
		if c := b.Counts(); c != (breaker.Counts{}) {
			t.Fatalf("counted when open: %+v", c)
		}
		time.Sleep(30 * time.Second)
		probe, err := b.Allow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		closed[2](errDown)
		closed[3](nil)
		want(t, b, breaker.HalfOpen)
		if _, err := b.Allow(t.Context()); !errors.Is(err, breaker.ErrOpen) {
			t.Fatalf("an old result freed a probe's place: %v", err)
		}

		b.Close() // by hand, the probe still out
		done, _ := b.Allow(t.Context())
		closed2 = append(closed2, done)
		probe(errDown)
		closed[4](errDown)
		want(t, b, breaker.Closed)
		b.Open()
		closed2[0](nil)
		probe(nil)
		want(t, b, breaker.Open)
		time.Sleep(time.Hour)
		if _, err := b.Allow(t.Context()); !errors.Is(err, breaker.ErrOpen) {
			t.Fatalf("opened by hand, it let a call through: %v", err)
		}
		b.Close()
		runs(b, 1, succeed)
		want(t, b, breaker.Closed)
	})
}

func TestProbesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1, Probes: 3}))
		for round := range 20 {
			runs(b, 1, fail)
			time.Sleep(30 * time.Second)
			var admitted, rejected atomic.Int32
			var all sync.WaitGroup
			for range 200 {
				all.Go(func() {
					err := b.Run(context.Background(), func(context.Context) error {
						admitted.Add(1)
						time.Sleep(time.Second)
						return nil
					})
					if errors.Is(err, breaker.ErrOpen) {
						rejected.Add(1)
					}
				})
			}
			all.Wait()
			if admitted.Load() != 3 || rejected.Load() != 197 {
				t.Fatalf("round %d: %d admitted, %d rejected", round, admitted.Load(), rejected.Load())
			}
			want(t, b, breaker.Closed)
		}
	})
}

func halfOpen(t *testing.T) *breaker.Breaker {
	t.Helper()
	b := breaker.Must(breaker.New(breaker.Config{Failures: 1, Timeout: -1}))
	runs(b, 1, fail)
	time.Sleep(30 * time.Second)
	return b
}

func TestProbeThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t)
		value := &struct{ x int }{1}
		func() {
			defer func() {
				if r := recover(); r != value {
					t.Errorf("panicked with %v, want the same value", r)
				}
			}()
			_ = b.Run(t.Context(), func(context.Context) error { panic(value) })
		}()
		want(t, b, breaker.Open)
	})
}

func TestProbeThatEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t)
		go func() { _ = b.Run(context.Background(), func(context.Context) error { runtime.Goexit(); return nil }) }()
		synctest.Wait()
		want(t, b, breaker.HalfOpen)
		runs(b, 1, succeed)
		want(t, b, breaker.Closed)
	})
}

func TestProbeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t)
		hung, _ := b.Allow(t.Context())
		time.Sleep(30*time.Second - 1)
		if _, err := b.Allow(t.Context()); !errors.Is(err, breaker.ErrOpen) {
			t.Fatalf("before the bound: %v", err)
		}
		time.Sleep(time.Nanosecond)
		second, err := b.Allow(t.Context())
		if err != nil {
			t.Fatalf("after the bound: %v", err)
		}
		hung(errDown) // its place is another's
		want(t, b, breaker.HalfOpen)
		second(nil)
		want(t, b, breaker.Closed)
	})
}

func TestManualAndObserveOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []breaker.State
		b := breaker.Must(breaker.New(breaker.Config{Failures: 2, ObserveOnly: true, Bulkhead: 1, Rate: 1,
			OnStateChange: func(c breaker.StateChange) { changes = append(changes, c.To) }}))
		runs(b, 2, fail)
		want(t, b, breaker.Open)
		for range 3 {
			if err := b.Run(t.Context(), fail); !errors.Is(err, errDown) {
				t.Fatalf("observing, it rejected: %v", err)
			}
		}
		time.Sleep(time.Minute)
		runs(b, 1, succeed)
		want(t, b, breaker.Closed)
		b.Open()
		if err := b.Run(t.Context(), succeed); err != nil {
			t.Fatalf("observing, opened by hand, it rejected: %v", err)
		}
		synctest.Wait()
		if len(changes) < 3 || changes[0] != breaker.Open {
			t.Fatalf("changes: %v", changes)
		}
	})
}

func TestConfigThatMakesNoSense(t *testing.T) {
	nan := func() float64 { var z float64; return z / z }()
	for name, cfg := range map[string]breaker.Config{
		"rate over 1":       {FailureRate: 1.5},
		"rate not a number": {SlowRate: nan},
		"negative OpenFor":  {OpenFor: -1},
		"negative Probes":   {Probes: -1},
		"negative Window":   {Window: -1},
		"negative Burst":    {Rate: 1, Burst: -1},
	} {
		if _, err := breaker.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRegistryKeepsWhatFails(t *testing.T) {
	r, err := breaker.NewRegistry(breaker.Config{Name: "http", Failures: 1}, 8)
	if err != nil {
		t.Fatal(err)
	}
	broken := r.Get("broken")
	runs(broken, 1, fail)
	for i := range 10_000 {
		runs(r.Get(string(rune('a'+i%26))+time.Duration(i).String()), 1, succeed)
	}
	if r.Get("broken") != broken {
		t.Fatal("junk keys pushed out an open breaker")
	}
	held := 0
	r.Each(func(string, *breaker.Breaker) bool { held++; return true })
	if held > 8 {
		t.Fatalf("%d breakers held, want at most 8", held)
	}
	if broken.Name() != "http/broken" {
		t.Fatalf("name %q", broken.Name())
	}
}

func TestSuccessAllocatesNothing(t *testing.T) {
	b := breaker.Must(breaker.New(breaker.Config{Timeout: -1}))
	ctx := context.Background()
	fn := func(context.Context) (int, error) { return 1, nil }
	if n := testing.AllocsPerRun(1000, func() { _, _ = breaker.Do(ctx, b, fn) }); n != 0 {
		t.Errorf("a success allocates %v times", n)
	}
	b.Open()
	if n := testing.AllocsPerRun(1000, func() { _, _ = breaker.Do(ctx, b, fn) }); n > 1 {
		t.Errorf("a rejection allocates %v times", n)
	}
}
