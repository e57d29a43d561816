package benchmarks

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	resiliency "github.com/eapache/go-resiliency/breaker"
	"github.com/eapache/go-resiliency/deadline"
	"github.com/eapache/go-resiliency/retrier"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/sony/gobreaker/v2"

	"github.com/sillar-go/sillar/breaker"
)

var errDown = errors.New("down")

// call is what is guarded: next to nothing, so that what is measured is the guard.
func call(context.Context) (int, error) { return 1, nil }

// compare runs one benchmark for each contestant, on as many goroutines as -cpu says. want is what each must return.
func compare(b *testing.B, want func(error) bool, contestants []contestant) {
	for _, c := range contestants {
		if err := c.call(); !want(err) {
			b.Fatalf("%s: %v", c.name, err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					_ = c.call()
				}
			})
		})
	}
}

type contestant struct {
	name string
	call func() error
}

func succeeds(err error) bool { return err == nil }
func fails(err error) bool    { return err != nil }

func sillar(cfg breaker.Config) func() error {
	b, ctx := breaker.Must(breaker.New(cfg)), context.Background()
	return func() error { _, err := breaker.Do(ctx, b, call); return err }
}

func failsafeGo(policies ...failsafe.Policy[int]) func() error {
	e := failsafe.With(policies...)
	ctx := context.Background()
	return func() error {
		_, err := e.WithContext(ctx).GetWithExecution(func(x failsafe.Execution[int]) (int, error) {
			return call(x.Context())
		})
		return err
	}
}

// hystrixGo is hystrix-go, which runs every call on a goroutine and always has a timeout and a bulkhead.
func hystrixGo(name string) func() error {
	hystrix.ConfigureCommand(name, hystrix.CommandConfig{Timeout: 10_000, MaxConcurrentRequests: 100})
	ctx := context.Background()
	return func() error {
		return hystrix.DoC(ctx, name, func(ctx context.Context) error { _, err := call(ctx); return err }, nil)
	}
}

// BenchmarkBreakerClosed is a success through a closed breaker and nothing else.
func BenchmarkBreakerClosed(b *testing.B) {
	gb := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
	er := resiliency.New(5, 1, 30*time.Second)
	ctx := context.Background()
	compare(b, succeeds, []contestant{
		{"sillar", sillar(breaker.Config{Timeout: -1})},
		{"gobreaker", func() error { _, err := gb.Execute(func() (int, error) { return call(ctx) }); return err }},
		{"failsafe-go", failsafeGo(circuitbreaker.NewWithDefaults[int]())},
		{"go-resiliency", func() error { return er.Run(func() error { _, err := call(ctx); return err }) }},
	})
}

// BenchmarkBreakerTimeout is the same with a timeout of 10 s, beside context.WithTimeout alone.
func BenchmarkBreakerTimeout(b *testing.B) {
	gb := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
	er, dl := resiliency.New(5, 1, 30*time.Second), deadline.New(10*time.Second)
	ctx := context.Background()
	within := func() (int, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return call(ctx)
	}
	compare(b, succeeds, []contestant{
		{"sillar", sillar(breaker.Config{})},
		{"context", func() error { _, err := within(); return err }},
		{"gobreaker", func() error { _, err := gb.Execute(within); return err }},
		{"failsafe-go", failsafeGo(circuitbreaker.NewWithDefaults[int](), timeout.New[int](10*time.Second))},
		{"go-resiliency", func() error {
			return er.Run(func() error {
				return dl.Run(func(<-chan struct{}) error { _, err := call(ctx); return err })
			})
		}},
		{"hystrix-go", hystrixGo("timeout")},
	})
}

// BenchmarkBreakerRetry has a retry policy that has nothing to do.
func BenchmarkBreakerRetry(b *testing.B) {
	er, re := resiliency.New(5, 1, 30*time.Second), retrier.New(retrier.ExponentialBackoff(3, 100*time.Millisecond), nil)
	ctx := context.Background()
	compare(b, succeeds, []contestant{
		{"sillar", sillar(breaker.Config{Timeout: -1, Retry: breaker.Retry{Attempts: 3}})},
		{"failsafe-go", failsafeGo(retrypolicy.NewWithDefaults[int](), circuitbreaker.NewWithDefaults[int]())},
		{"go-resiliency", func() error {
			return re.Run(func() error { return er.Run(func() error { _, err := call(ctx); return err }) })
		}},
	})
}

// BenchmarkBreakerAdaptive is a success within an adaptive limit of concurrency.
func BenchmarkBreakerAdaptive(b *testing.B) {
	compare(b, succeeds, []contestant{
		{"sillar", sillar(breaker.Config{Timeout: -1, Adaptive: breaker.AdaptiveLimit{Max: 200}})},
		{"failsafe-go", failsafeGo(adaptivelimiter.NewWithDefaults[int](), circuitbreaker.NewWithDefaults[int]())},
	})
}

// BenchmarkBreakerStack has everything on: total deadline, retry, breaker, rate limit, bulkhead, attempt timeout.
func BenchmarkBreakerStack(b *testing.B) {
	compare(b, succeeds, []contestant{
		{"sillar", sillar(breaker.Config{Deadline: time.Minute, Retry: breaker.Retry{Attempts: 3}, FailureRate: 0.5,
			Rate: 1e9, Burst: 1e9, Bulkhead: 100})},
		{"failsafe-go", failsafeGo(timeout.New[int](time.Minute), retrypolicy.NewWithDefaults[int](),
			circuitbreaker.NewWithDefaults[int](),
			ratelimiter.NewBursty[int](1e9, time.Second), bulkhead.New[int](100), timeout.New[int](10*time.Second))},
	})
}

// BenchmarkBreakerOpen is a rejection by an open breaker.
func BenchmarkBreakerOpen(b *testing.B) {
	ours := breaker.Must(breaker.New(breaker.Config{Timeout: -1, Failures: 1, OpenFor: time.Hour}))
	gb := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{Timeout: time.Hour})
	fs := circuitbreaker.NewBuilder[int]().WithDelay(time.Hour).Build()
	er := resiliency.New(1, 1, time.Hour)
	down := func(context.Context) (int, error) { return 0, errDown }
	ctx := context.Background()
	for range 10 {
		_, _ = breaker.Do(ctx, ours, down)
		_, _ = gb.Execute(func() (int, error) { return down(ctx) })
		_ = er.Run(func() error { return errDown })
	}
	fs.Open()
	compare(b, fails, []contestant{
		{"sillar", func() error { _, err := breaker.Do(ctx, ours, call); return err }},
		{"gobreaker", func() error { _, err := gb.Execute(func() (int, error) { return call(ctx) }); return err }},
		{"failsafe-go", failsafeGo(fs)},
		{"go-resiliency", func() error { return er.Run(func() error { return nil }) }},
	})
}
