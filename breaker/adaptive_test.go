package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// workers is a service with so many workers, each of which takes so long; other calls queue.
type workers struct {
	places chan struct{}
	takes  atomic.Int64
	varied *rand.Rand // makes each call take another time, exponentially distributed
	mu     sync.Mutex // guards varied
}

func newWorkers(n int, takes time.Duration) *workers {
	w := &workers{places: make(chan struct{}, n)}
	w.takes.Store(int64(takes))
	return w
}

func (w *workers) call(ctx context.Context) error {
	select {
	case w.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.places }()
	takes := float64(w.takes.Load())
	if w.varied != nil {
		w.mu.Lock()
		takes *= w.varied.ExpFloat64()
		w.mu.Unlock()
	}
	time.Sleep(time.Duration(takes))
	return nil
}

// demand runs so many clients, which call again and again for a time, and pause after a rejection.
func demand(t *testing.T, b *breaker.Breaker, clients int, s *workers,
	d time.Duration) (ok int, latency time.Duration) {
	t.Helper()
	var done, total atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range clients {
		wg.Go(func() {
			for time.Now().Before(end) {
				began := time.Now()
				switch err := b.Run(t.Context(), s.call); {
				case err == nil:
					done.Add(1)
					total.Add(int64(time.Since(began)))
				case breaker.IsRejection(err):
					time.Sleep(time.Duration(s.takes.Load()))
				}
			}
		})
	}
	wg.Wait()
	return int(done.Load()), time.Duration(total.Load() / max(1, done.Load()))
}

// The limit finds the capacity of an overloaded service, follows it when it changes, and is not fooled by an overload
// that lasts longer than its memory.
func TestAdaptiveLimitFollowsTheCapacity(t *testing.T) {
	for name, c := range map[string]struct {
		workers int
		takes   time.Duration
		initial int
		varied  *rand.Rand
	}{
		"small":       {4, 20 * time.Millisecond, 0, nil},
		"large":       {40, 40 * time.Millisecond, 0, nil},
		"fast":        {5, 2 * time.Millisecond, 0, nil},
		"slow":        {20, time.Second, 0, nil},
		"began above": {10, 20 * time.Millisecond, 200, nil},
		"began at 1":  {30, 20 * time.Millisecond, 1, nil},
		"varied":      {20, 20 * time.Millisecond, 0, rand.New(rand.NewPCG(1, 2))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWorkers(c.workers, c.takes)
				s.varied = c.varied
				b := breaker.Must(breaker.New(breaker.Config{Timeout: -1, Adaptive: breaker.AdaptiveLimit{Max: 200,
					Initial: c.initial}}))
				clients := 3 * c.workers
				demand(t, b, clients, s, 60*c.takes+15*time.Second)
				d := 20*c.takes + 12*time.Second // a measurement is within
				ok, latency := demand(t, b, clients, s, d)
				ideal := float64(c.workers) * d.Seconds() / c.takes.Seconds()
				limit, inFlight := b.Limit()
				t.Logf("%.3f of the capacity, %.2f of the latency, limit %d", float64(ok)/ideal,
					latency.Seconds()/c.takes.Seconds(), limit)
				if float64(ok) < 0.9*ideal || latency > 25*c.takes/10 || inFlight != 0 {
					t.Errorf("%d of %.0f calls, latency %s of %s, limit %d, %d in flight", ok, ideal, latency, c.takes, limit,
						inFlight)
				}
			})
		})
	}
}

func TestAdaptiveLimitFollowsAServiceThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWorkers(10, 10*time.Millisecond)
		b := breaker.Must(breaker.New(breaker.Config{Timeout: -1, Adaptive: breaker.AdaptiveLimit{Max: 200}}))
		for _, takes := range []time.Duration{10, 50, 10, 200, 5} {
			takes *= time.Millisecond
			s.takes.Store(int64(takes))
			demand(t, b, 50, s, 25*time.Second) // the next measurement of the unloaded latency is within
			ok, latency := demand(t, b, 50, s, 10*time.Second)
			ideal := 10 * 10 / takes.Seconds()
			limit, _ := b.Limit()
			t.Logf("%s: %.3f of the capacity, %.2f of the latency, limit %d", takes, float64(ok)/ideal,
				latency.Seconds()/takes.Seconds(), limit)
			if float64(ok) < 0.9*ideal || latency > 2*takes {
				t.Errorf("%s a call: %d of %.0f calls, latency %s, limit %d", takes, ok, ideal, latency, limit)
			}
		}
	})
}

// What is rejected counts as nothing, is typed, is not retried, and the hooks learn of it and of the limit.
func TestAdaptiveLimitRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		var limits []breaker.LimitChange
		b := breaker.Must(breaker.New(breaker.Config{
			Name: "b", Failures: 1, Retry: breaker.Retry{Attempts: 3}, Adaptive: breaker.AdaptiveLimit{Max: 2, Min: 2},
			OnCall:        func(c breaker.Call) { calls = append(calls, c.Outcome.String()+" "+c.Rejected) },
			OnLimitChange: func(l breaker.LimitChange) { limits = append(limits, l) },
		}))
		useTwoSlots(t, b)
		if _, n := b.Limit(); n != 0 {
			t.Errorf("%d in flight, want 0", n)
		}
		synctest.Wait()
		if got := strings.Join(calls, ","); got != "ignore overloaded,success ,success " {
			t.Errorf("hooks got %q", got)
		}
		if len(limits) != 1 || limits[0] != (breaker.LimitChange{Name: "b", To: 2}) {
			t.Errorf("limits %v", limits)
		}
	})
}

// useTwoSlots takes the two slots and is refused a third.
func useTwoSlots(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	one, err1 := b.Allow(t.Context())
	two, err2 := b.Allow(t.Context())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	ran := false
	err := b.Run(t.Context(), func(context.Context) error { ran = true; return nil })
	var declared interface{ NotAttempted() (time.Duration, bool) }
	if err != breaker.ErrOverloaded || !breaker.IsRejection(err) || !errors.As(err, &declared) || ran {
		t.Errorf("above the limit: %v, ran: %v", err, ran)
	}
	if got := b.Counts(); got != (breaker.Counts{}) || b.State() != breaker.Closed {
		t.Errorf("counted %+v, %s", got, b.State())
	}
	one(nil)
	two(nil)
	two(nil) // does nothing
}

// A place is given back however the call ends, and a half-open breaker whose probe is above the limit keeps no place
// for it.
func TestAdaptiveLimitGivesPlacesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1, OpenFor: time.Second,
			Adaptive: breaker.AdaptiveLimit{Max: 1}}))
		late, err := b.Allow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		breaker.TripFor(b, errDown)
		time.Sleep(time.Second)
		for range 3 {
			if err := b.Run(t.Context(), succeed); err != breaker.ErrOverloaded {
				t.Fatalf("a probe above the limit: %v", err)
			}
		}
		late(nil)
		if err := b.Run(t.Context(), succeed); err != nil || b.State() != breaker.Closed {
			t.Fatalf("the probe: %v, %s", err, b.State())
		}
		func() {
			defer func() { _ = recover() }()
			_ = b.Run(t.Context(), func(context.Context) error { panic("x") })
		}()
		if limit, n := b.Limit(); limit != 1 || n != 0 {
			t.Errorf("limit %d, %d in flight", limit, n)
		}
	})
}

// overload is an error that declares load, as HTTP's 429 does.
type overload bool

func (overload) Error() string    { return "too many requests" }
func (o overload) Overload() bool { return bool(o) }

var answersUnderLoad = map[string]struct {
	err    error
	within time.Duration
	shrink bool
}{
	"a failure":        {err: errDown},
	"declared load":    {err: overload(true), shrink: true},
	"declared no load": {err: overload(false)},
	"a timeout":        {err: breaker.ErrTimeout, shrink: true},
	"a hurry":          {err: context.DeadlineExceeded, within: 10 * time.Millisecond},
}

// Only signs of load shrink the limit: a service that fails at once, or a caller in a hurry, says nothing about it.
func TestAdaptiveLimitShrinksForSignsOfLoadOnly(t *testing.T) {
	for name, c := range answersUnderLoad {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.Must(breaker.New(breaker.Config{Failures: -1, Adaptive: breaker.AdaptiveLimit{Max: 100, Min: 3,
					Initial: 50}}))
				for range 100 {
					ctx, cancel := context.WithCancel(t.Context())
					if c.within > 0 {
						ctx, cancel = context.WithTimeout(ctx, c.within)
					}
					_ = b.Run(ctx, func(ctx context.Context) error {
						if c.within > 0 {
							<-ctx.Done()
						} else {
							time.Sleep(100 * time.Millisecond)
						}
						return c.err
					})
					cancel()
				}
				want := 50
				if c.shrink {
					want = 3
				}
				if limit, _ := b.Limit(); limit != want {
					t.Errorf("limit %d, want %d", limit, want)
				}
			})
		})
	}
}

// Callers with short deadlines, which no breaker counts, do not keep the limit from shrinking when the service hangs.
func TestAdaptiveLimitSeesCallsThatWereCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWorkers(100, 10*time.Millisecond)
		b := breaker.Must(breaker.New(breaker.Config{Adaptive: breaker.AdaptiveLimit{Max: 100}}))
		demand(t, b, 50, s, 5*time.Second)
		before, _ := b.Limit()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
					_ = b.Run(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
					<-ctx.Done()
					cancel()
				}
			})
		}
		wg.Wait()
		if after, _ := b.Limit(); after > before/2 || b.State() != breaker.Closed {
			t.Errorf("limit %d, then %d; %s", before, after, b.State())
		}
	})
}

// Callers in a hurry, whose deadlines leave a call hardly the time that it needs, do not shrink the limit for others.
func TestAdaptiveLimitIgnoresCallersInAHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWorkers(100, 10*time.Millisecond)
		b := breaker.Must(breaker.New(breaker.Config{Adaptive: breaker.AdaptiveLimit{Max: 50}}))
		demand(t, b, 50, s, 5*time.Second)
		before, _ := b.Limit()
		for range 500 {
			ctx, cancel := context.WithTimeout(t.Context(), 19*time.Millisecond)
			_ = b.Run(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			cancel()
		}
		if after, _ := b.Limit(); before != 50 || after != before {
			t.Errorf("limit %d, then %d; want 50", before, after)
		}
	})
}

// A measurement of the unloaded latency rejects calls, so it is rare where nothing queues.
func TestAdaptiveLimitMeasuresRarelyWithoutLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cuts := 0
		s := newWorkers(100, 200*time.Millisecond)
		b := breaker.Must(breaker.New(breaker.Config{Adaptive: breaker.AdaptiveLimit{Max: 50, Initial: 50},
			OnLimitChange: func(l breaker.LimitChange) {
				if l.To < l.From {
					cuts++
				}
			}}))
		demand(t, b, 50, s, 80*time.Second)
		synctest.Wait()
		if limit, _ := b.Limit(); cuts != 2 || limit != 50 {
			t.Errorf("%d measurements in 80 s, want 2; limit %d, want 50", cuts, limit)
		}
	})
}

// A limit that is not used does not grow: it would be no limit when the load comes.
func TestAdaptiveLimitDoesNotGrowUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWorkers(100, 50*time.Millisecond)
		b := breaker.Must(breaker.New(breaker.Config{Adaptive: breaker.AdaptiveLimit{Max: 100}}))
		demand(t, b, 9, s, 5*time.Second)
		if limit, _ := b.Limit(); limit != 20 {
			t.Errorf("limit %d, want 20", limit)
		}
		demand(t, b, 90, s, 10*time.Second)
		if limit, _ := b.Limit(); limit < 90 {
			t.Errorf("limit %d, want 90 at least", limit)
		}
	})
}

func TestAdaptiveLimitRefusesSenselessConfigs(t *testing.T) {
	for _, c := range []breaker.AdaptiveLimit{{Max: 10, Min: 11}, {Max: 10, Min: -1}, {Max: 10, Initial: 11},
		{Max: 10, Initial: -1}, {Max: 10, Min: 5, Initial: 4}} {
		if _, err := breaker.New(breaker.Config{Adaptive: c}); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	for _, c := range []breaker.AdaptiveLimit{{}, {Max: -1}, {Max: 1}, {Max: 10, Min: 10}, {Max: 50, Min: 30}} {
		if _, err := breaker.New(breaker.Config{Adaptive: c}); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func ExampleAdaptiveLimit() {
	b := breaker.Must(breaker.New(breaker.Config{Name: "search", Adaptive: breaker.AdaptiveLimit{Max: 200}}))
	err := b.Run(context.Background(), func(context.Context) error { return nil })
	if errors.Is(err, breaker.ErrOverloaded) {
		fmt.Println("shed")
	}
	limit, inFlight := b.Limit()
	fmt.Println(limit, inFlight)
	// Output: 20 0
}
