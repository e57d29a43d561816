// Package breaker guards a call to something that can fail: a circuit breaker with timeout, retry, bulkhead, adaptive
// concurrency limit and rate limit in one fixed, safe order.
//
//	users, err := breaker.New(breaker.Config{Name: "users"}) // 10 s timeout, opens after 5 failures in a row for 30 s
//	...
//	u, err := breaker.Do(ctx, users, func(ctx context.Context) (*User, error) { return client.User(ctx, id) })
//	switch {
//	case errors.Is(err, breaker.ErrOpen):    // not even tried
//	case errors.Is(err, breaker.ErrTimeout): // tried, took too long
//	}
//
// The order, outermost first: fallback (DoOr), total deadline, retry within a budget, circuit breaker, rate limit,
// bulkhead, adaptive limit, attempt timeout, the call. Timeout and breaker are on by default, everything else is on
// when its field in Config asks for it.
//
// # Guarantees
//
//   - A call counts when it completes, in the window of its completion, and only in the state that admitted it:
//     results from before a change of state never touch the present state.
//   - Half-open admits at most Config.Probes calls. A probe that panics is a failure and panics on; one that ends by
//     runtime.Goexit, or hangs longer than Config.ProbeTimeout, gives its place back.
//   - Outcomes have three values. What the caller cancels is Ignore, the breaker's own timeout is Failure; rejections
//     (open, full, limited, overloaded) count as nothing and are not retried. A call whose deadline has passed is not
//     run.
//   - A retry pauses with full jitter, never longer than its ceiling or what the service asked for, and not at all when
//     the pause would pass the deadline, the breaker is open, or too large a part of the calls are retries already.
//     What it returns then matches both the last error and the reason.
//   - An AdaptiveLimit keeps the calls of an overloaded service short: in simulations of services with a fixed number
//     of workers it lets through more than 0.9 of their capacity, at up to 2.5 times the latency without load where the
//     workers are few, and 1.5 times where they are many.
//   - Hooks run in order, once each, on a goroutine of their own, outside every lock: a slow or panicking hook delays
//     no caller, and a hook may call the breaker.
//   - A closed breaker with Timeout: -1 adds no allocation to a successful call, and takes no lock, unless a rate limit
//     or a rate over a window is asked for. Timeout and Deadline together cost one context, and none when the caller's
//     own deadline is earlier. A retry policy costs nothing until the first failure.
//
// # What it does not do
//
// State is not shared between processes: that would put a round trip, and its failure, before every call. A function
// that ignores its context is not abandoned: it runs on the caller's goroutine until it returns. There is no hedging of
// functions, a second call beside a slow one: functions that write to what they captured, as clients do to their reply,
// would race, and only the program knows how to close the answer that comes second. Package breakerhttp hedges
// requests. There are no span events here, for this package links no telemetry: see breakerotel.
//
// The state machine is github.com/sony/gobreaker/v2, the pauses between retries are computed by
// github.com/cenkalti/backoff/v4.
package breaker
