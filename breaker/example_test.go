package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

func ExampleDo() {
	users := breaker.Must(breaker.New(breaker.Config{Name: "users", Failures: 2, Timeout: time.Second}))
	call := func(context.Context) (string, error) { return "", errors.New("connection refused") }
	for range 3 {
		_, err := breaker.Do(context.Background(), users, call)
		fmt.Println(err, errors.Is(err, breaker.ErrOpen))
	}
	fmt.Println(users.State())
	// Output:
	// connection refused false
	// connection refused false
	// breaker: users is open for another 30s true
	// open
}

func ExampleDoOr() {
	rates := breaker.Must(breaker.New(breaker.Config{Name: "rates", Retry: breaker.Retry{Attempts: 3,
		Backoff: breaker.Exponential(time.Millisecond, 10*time.Second)}}))
	rate, err := breaker.DoOr(context.Background(), rates,
		func(context.Context) (float64, error) { return 0, errors.New("down") },
		func(context.Context, error) (float64, error) { return 1.08, nil }) // yesterday's
	fmt.Println(rate, err)
	// Output: 1.08 <nil>
}

func ExampleRetry() {
	stock := breaker.Must(breaker.New(breaker.Config{
		Name:     "stock",
		Deadline: 5 * time.Second, // for all attempts together
		Retry:    breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(time.Millisecond, 10*time.Second)},
	}))
	n := 0
	_, err := breaker.Do(context.Background(), stock, func(context.Context) (int, error) {
		n++
		return 0, errors.New("connection refused")
	})
	var gaveUp *breaker.RetryError
	fmt.Println(n, errors.As(err, &gaveUp), errors.Is(err, breaker.ErrExhausted), gaveUp.Err)
	// Output: 3 true true connection refused
}

func ExampleNew() {
	b, err := breaker.New(breaker.Config{
		Name: "reports", Timeout: 2 * time.Second,
		Failures: -1, FailureRate: 0.5, Window: 30 * time.Second, // half of the calls, instead of some in a row
		Bulkhead: 10, BulkheadWait: 100 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(b.Name(), b.State())
	_, err = breaker.New(breaker.Config{FailureRate: 50})
	fmt.Println(err)
	// Output:
	// reports closed
	// breaker: default: Config.FailureRate is 50, want at most 1
}
