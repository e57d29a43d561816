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
	rates := breaker.Must(breaker.New(breaker.Config{Name: "rates", Retry: breaker.Retry{Attempts: 3, Initial: time.Millisecond}}))
	rate, err := breaker.DoOr(context.Background(), rates,
		func(context.Context) (float64, error) { return 0, errors.New("down") },
		func(context.Context, error) (float64, error) { return 1.08, nil }) // yesterday's
	fmt.Println(rate, err)
	// Output: 1.08 <nil>
}
