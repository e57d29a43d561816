//go:build load

package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// service is a simulated service: workers that take calls from a queue. Like many services it does not notice that a
// caller has given up, and works for it all the same.
type service struct {
	workers chan struct{}
	working sync.WaitGroup
	began   time.Time
	takes   func(at time.Duration) time.Duration
	fails   func(at time.Duration) bool
}

var errService = errors.New("503")

const (
	loadTakes   = 20 * time.Millisecond
	loadWorkers = 20 // so 1,000 calls a second
	loadFor     = 60 * time.Second
	loadWithin  = 500 * time.Millisecond // what a caller waits for an answer
)

// start makes the service ready.
func (s *service) start() { s.workers, s.began = make(chan struct{}, loadWorkers), time.Now() }

// work does the work of a call, and returns its answer.
func (s *service) work() error {
	if s.fails != nil && s.fails(time.Since(s.began)) {
		time.Sleep(time.Millisecond)
		return errService
	}
	s.workers <- struct{}{}
	time.Sleep(s.takes(time.Since(s.began)))
	<-s.workers
	return nil
}

func (s *service) call(ctx context.Context) error {
	answer := make(chan error, 1)
	s.working.Go(func() { answer <- s.work() })
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guard runs a call guarded by something. rejected reports whether an error says that the call was not made.
type guard struct {
	name string
	make func() func(context.Context, func(context.Context) error) error
}

func failsafeGuard(policies ...failsafe.Policy[any]) func(context.Context, func(context.Context) error) error {
	e := failsafe.With(policies...)
	return func(ctx context.Context, call func(context.Context) error) error {
		return e.WithContext(ctx).RunWithExecution(func(x failsafe.Execution[any]) error { return call(x.Context()) })
	}
}

func circuit() failsafe.Policy[any] {
	return circuitbreaker.NewBuilder[any]().WithFailureThreshold(5).WithDelay(time.Second).Build()
}

var guards = []guard{
	{"none", func() func(context.Context, func(context.Context) error) error {
		return func(ctx context.Context, call func(context.Context) error) error { return call(ctx) }
	}},
	{"sillar: limit", func() func(context.Context, func(context.Context) error) error {
		return breaker.Must(breaker.New(breaker.Config{Failures: -1, Adaptive: breaker.AdaptiveLimit{Max: 200}})).Run
	}},
	{"failsafe-go: limit", func() func(context.Context, func(context.Context) error) error {
		return failsafeGuard(adaptivelimiter.NewWithDefaults[any]())
	}},
	{"sillar: limit, breaker", func() func(context.Context, func(context.Context) error) error {
		return breaker.Must(breaker.New(breaker.Config{OpenFor: time.Second, MaxOpenFor: time.Second,
			Adaptive: breaker.AdaptiveLimit{Max: 200}})).Run
	}},
	{"sillar: limit, breaker that opens longer", func() func(context.Context, func(context.Context) error) error {
		return breaker.Must(breaker.New(breaker.Config{OpenFor: time.Second, Adaptive: breaker.AdaptiveLimit{Max: 200}})).Run
	}},
	{"failsafe-go: limit, breaker", func() func(context.Context, func(context.Context) error) error {
		return failsafeGuard(adaptivelimiter.NewWithDefaults[any](), circuit()) // else its rejections would open the breaker
	}},
}

func rejected(err error) bool {
	return breaker.IsRejection(err) || errors.Is(err, adaptivelimiter.ErrExceeded) ||
		errors.Is(err, circuitbreaker.ErrOpen)
}

// result is what callers got.
type result struct {
	good, late, failed, rejected int
	latencies                    []time.Duration // of good answers
	waits                        []time.Duration // of every caller
}

// loadHeader begins a table.
const loadHeader = "| | goodput/s | late/s | failed/s | rejected/s | p50, ms | p99, ms | p99 of all callers, ms " +
	"|\n|---|---:|---:|---:|---:|---:|---:|---:|\n"

// row is the line of a table.
func (r *result) row(name string, lasted time.Duration) string {
	a := func(n int) float64 { return float64(n) / lasted.Seconds() }
	return fmt.Sprintf("| %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f |\n", name, a(r.good), a(r.late),
		a(r.failed), a(r.rejected),
		quantile(r.latencies, 0.5), quantile(r.latencies, 0.99), quantile(r.waits, 0.99))
}

// quantile returns milliseconds.
func quantile(of []time.Duration, q float64) float64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[int(q*float64(len(of)-1))].Seconds() * 1000
}

// load makes calls at a rate, at random times, whatever becomes of earlier ones.
func load(rate float64, lasts time.Duration, call func(context.Context) error) *result {
	var r result
	var mu sync.Mutex
	var wg sync.WaitGroup
	random := rand.New(rand.NewPCG(1, 1))
	began, next := time.Now(), time.Duration(0)
	for time.Since(began) < lasts {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), loadWithin)
			defer cancel()
			began := time.Now()
			err := call(ctx)
			took := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			r.waits = append(r.waits, took)
			switch {
			case err == nil:
				r.good++
				r.latencies = append(r.latencies, took)
			case rejected(err):
				r.rejected++
			case errors.Is(err, context.DeadlineExceeded):
				r.late++
			default:
				r.failed++
			}
		})
		next += time.Duration(random.ExpFloat64() / rate * float64(time.Second))
		time.Sleep(time.Until(began.Add(next)))
	}
	wg.Wait()
	return &r
}

// TestBreakerLoad prints the tables of breaker.md: it compares and does not test, so it has a build tag of its own.
// Time is simulated, so the same tables come on every machine, but for the order in which goroutines run.
func TestBreakerLoad(t *testing.T) {
	always := func(time.Duration) time.Duration { return loadTakes }
	within := func(at time.Duration) bool { return at >= 20*time.Second && at < 40*time.Second }
	for _, c := range []struct {
		name string
		rate float64
		s    *service
	}{
		{"healthy, 600 calls a second", 600, &service{takes: always}},
		{"overloaded, 1,500 calls a second", 1500, &service{takes: always}},
		{"slow, 600 calls a second: each takes 100 ms instead of 20 ms, from second 20 to 40", 600,
			&service{takes: func(at time.Duration) time.Duration {
				if within(at) {
					return 5 * loadTakes
				}
				return loadTakes
			}}},
		{"failing, 600 calls a second: each fails after 1 ms, from second 20 to 40", 600,
			&service{takes: always, fails: within}},
		{"flapping, 600 calls a second: each fails after 1 ms, in every other 2 s", 600,
			&service{takes: always, fails: func(at time.Duration) bool {
				return at/(2*time.Second)%2 == 1
			}}},
		{"hanging, 600 calls a second: none is answered, in every other 5 s", 600,
			&service{takes: func(at time.Duration) time.Duration {
				if at/(5*time.Second)%2 == 1 {
					return (at/(5*time.Second)+1)*5*time.Second - at
				}
				return loadTakes
			}}},
	} {
		var table strings.Builder
		fmt.Fprintf(&table, "\n### %s\n\n%s", strings.ToUpper(c.name[:1])+c.name[1:], loadHeader)
		for _, g := range guards {
			synctest.Test(t, func(*testing.T) {
				c.s.start()
				run := g.make()
				r := load(c.rate, loadFor, func(ctx context.Context) error { return run(ctx, c.s.call) })
				c.s.working.Wait()
				table.WriteString(r.row(g.name, loadFor))
			})
		}
		fmt.Print(table.String())
	}
}

// TestBreakerLoadHTTP is the overloaded service over HTTP, in real time: the limits see the latencies of a network and
// of busy CPUs too.
func TestBreakerLoadHTTP(t *testing.T) {
	const lasts = 20 * time.Second
	fmt.Printf("\n%s", loadHeader)
	for _, c := range []struct {
		name string
		wrap func(http.RoundTripper) http.RoundTripper
	}{
		{"none", func(base http.RoundTripper) http.RoundTripper { return base }},
		{"sillar: limit", func(base http.RoundTripper) http.RoundTripper {
			return breakerhttp.Must(breakerhttp.NewTransport(base,
				breakerhttp.Config{Breaker: breaker.Config{Failures: -1, Adaptive: breaker.AdaptiveLimit{Max: 200}}}))
		}},
		{"failsafe-go: limit", func(base http.RoundTripper) http.RoundTripper {
			return failsafehttp.NewRoundTripper(base, adaptivelimiter.NewWithDefaults[*http.Response]())
		}},
	} {
		s := &service{takes: func(time.Duration) time.Duration { return loadTakes }}
		s.start()
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { _ = s.work() }))
		base := &http.Transport{MaxIdleConnsPerHost: 1000}
		transport := c.wrap(base)
		r := load(1500, lasts, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
			if err != nil {
				return err
			}
			res, err := transport.RoundTrip(req)
			if err != nil {
				return err
			}
			return res.Body.Close()
		})
		fmt.Print(r.row(c.name, lasts))
		base.CloseIdleConnections()
		srv.Close()
	}
}
