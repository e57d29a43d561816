// Package breaker guards a call to something that can fail: a circuit breaker with timeout, retry, bulkhead and rate
// limit in one fixed, safe order.
//
//	users, err := breaker.New(breaker.Config{Name: "users"}) // 10 s timeout, opens after 5 failures in a row for 30 s
//	...
//	u, err := breaker.Do(ctx, users, func(ctx context.Context) (*User, error) { return client.User(ctx, id) })
//	switch {
//	case errors.Is(err, breaker.ErrOpen):    // not even tried
//	case errors.Is(err, breaker.ErrTimeout): // tried, took too long
//	}
//
// The order, outermost first: fallback (DoOr), total deadline, retry within a budget, circuit breaker, rate limit and
// bulkhead, attempt timeout, the call. Timeout and breaker are on by default, everything else is on when its field in
// Config asks for it.
//
// # Guarantees
//
//   - A call counts when it completes, in the window of its completion, and only in the state that admitted it:
//     results from before a change of state never touch the present state.
//   - Half-open admits at most Config.Probes calls. A probe that panics is a failure and panics on; one that ends by
//     runtime.Goexit, or hangs longer than Config.ProbeTimeout, gives its place back.
//   - Outcomes have three values. What the caller cancels is Ignore, the breaker's own timeout is Failure; rejections
//     (open, full, limited) count as nothing and are not retried.
//   - Hooks run in order, once each, on a goroutine of their own, outside every lock: a slow or panicking hook delays
//     nobody, and a hook may call the breaker.
//   - A closed breaker with Timeout: -1 adds no allocation to a successful call.
//
// # What it does not do
//
// State is not shared between processes: that would put a round trip, and its failure, before every call. A function
// that ignores its context is not abandoned: it runs on the caller's goroutine until it returns.
//
// The state machine is github.com/sony/gobreaker/v2, the pauses between retries are computed by
// github.com/cenkalti/backoff/v4.
package breaker
