package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/sony/gobreaker/v2"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// The samples of docs/coming-from-gobreaker.md. Each example is the same program with one of the libraries.

var errNoStock = errors.New("no such product")

// fetchStock fails once, and then answers.
func fetchStock(calls *int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		if *calls++; *calls == 1 {
			return 0, errors.New("connection reset")
		}
		return 3, nil
	}
}

func Example_gobreaker() {
	calls := 0
	fetch, ctx := fetchStock(&calls), context.Background()

	stock := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{
		Name:         "stock",
		Timeout:      30 * time.Second,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 5 },
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, errNoStock) },
	})
	n, err := backoff.RetryWithData(func() (int, error) {
		n, err := stock.Execute(func() (int, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return fetch(ctx)
		})
		if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) ||
			errors.Is(err, errNoStock) {
			return 0, backoff.Permanent(err)
		}
		return n, err
	}, backoff.WithContext(backoff.WithMaxRetries(
		backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Millisecond)), 2), ctx))

	fmt.Println(n, err, calls)
	// Output: 3 <nil> 2
}

func Example_failsafe() {
	calls := 0
	fetch, ctx := fetchStock(&calls), context.Background()

	handled := func(_ int, err error) bool { return err != nil && !errors.Is(err, errNoStock) }
	retries := retrypolicy.NewBuilder[int]().HandleIf(handled).AbortOnErrors(circuitbreaker.ErrOpen).
		WithMaxRetries(2).WithBackoff(time.Millisecond, time.Second).Build()
	circuit := circuitbreaker.NewBuilder[int]().HandleIf(handled).
		WithFailureThreshold(5).WithDelay(30 * time.Second).Build()
	stock := failsafe.With(retries, circuit, timeout.New[int](2*time.Second))
	n, err := stock.WithContext(ctx).GetWithExecution(func(x failsafe.Execution[int]) (int, error) {
		return fetch(x.Context())
	})

	fmt.Println(n, err, calls)
	// Output: 3 <nil> 2
}

func Example_breaker() {
	calls := 0
	fetch, ctx := fetchStock(&calls), context.Background()

	stock := breaker.Must(breaker.New(breaker.Config{
		Name:    "stock",
		Timeout: 2 * time.Second,
		Retry:   breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(time.Millisecond, time.Second)},
		Classify: func(ctx context.Context, err error) breaker.Outcome {
			if errors.Is(err, errNoStock) {
				return breaker.Success
			}
			return breaker.DefaultClassify(ctx, err)
		},
	}))
	n, err := breaker.Do(ctx, stock, fetch)

	fmt.Println(n, err, calls)
	// Output: 3 <nil> 2
}

func Example_failsafehttp() {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()

	retries := failsafehttp.NewRetryPolicyBuilder().WithBackoff(time.Millisecond, time.Second).WithMaxRetries(2).Build()
	hedge := hedgepolicy.NewWithDelayQuantile[*http.Response](0.95, 100, 32)
	circuit := circuitbreaker.NewBuilder[*http.Response]().WithFailureThreshold(5).WithDelay(30 * time.Second).
		HandleIf(func(res *http.Response, err error) bool { return err != nil || res.StatusCode >= 500 }).Build()
	client := &http.Client{Transport: failsafehttp.NewRoundTripper(nil, retries, circuit, hedge)}
	res, err := client.Get(srv.URL)

	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	fmt.Println(res.StatusCode, asked)
	// Output: 200 2
}

func Example_breakerhttp() {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()

	client, err := breakerhttp.Wrap(nil, breakerhttp.Config{
		Breaker: breaker.Config{
			Retry: breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(time.Millisecond, time.Second)},
		},
		Hedge: breakerhttp.Hedge{Quantile: 0.95},
	})
	if err != nil {
		panic(err)
	}
	res, err := client.Get(srv.URL)

	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	fmt.Println(res.StatusCode, asked)
	// Output: 200 2
}
