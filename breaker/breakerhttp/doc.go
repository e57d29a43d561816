// Package breakerhttp guards HTTP calls: an http.RoundTripper with a circuit breaker for each host, and a JSON REST
// client over it.
//
//	users, err := breakerhttp.NewClient("http://users:8000", breakerhttp.Config{})
//	...
//	u, err := breakerhttp.Get[User](ctx, users, breakerhttp.Path("api/v1/users", id))
//	switch {
//	case errors.Is(err, breakerhttp.ErrNotFound):    // 404
//	case errors.Is(err, breakerhttp.ErrUnavailable): // 5xx, 429, no connection, too slow, or the breaker is open
//	}
//
// Wrap guards the http.Client of a third-party SDK.
//
// # Guarantees
//
//   - Status 5xx, 429 and connection errors are failures, every other status is a success; what the caller cancels
//     counts as nothing.
//   - With Config.Breaker.Retry set, only requests are repeated that may be: idempotent methods, or an Idempotency-Key,
//     with no body or one that GetBody can replay. The body of a response that is not returned is drained and closed,
//     so its connection is used again. Retry-After is honoured, as seconds and as a date, up to Config.MaxRetryAfter.
//   - With Config.Hedge set, a second request is sent beside one that is slow, for the same requests as retries and for
//     a share of them at most. The first good answer is returned. The other request is cancelled, and its body is
//     closed.
//   - The attempt timeout ends when the response's header is there: it does not cut the body. Breaker.Deadline does, it
//     is the whole request's. Get, Post and the others, whose callers see no body, wait for each part of it no longer
//     than for the header.
//   - The last response reaches the caller readable, whatever its status. A request is never changed, and its body is
//     closed on every path.
//   - The correlation id and the trace of the context travel in the request's header.
//   - An error that arises on this side is ErrLocal and counts as nothing: docs/local-errors.md lists them.
//   - Breakers live in a bounded registry: junk hosts do not push out what is known of a failing one. Config.Key
//     divides the requests to a host further: by the template of the path, by tenant.
//
// # What it does not do
//
// It makes no spans: wrap the base transport with otelhttp for those. To the span that is in the request's context it
// adds the events breaker.retry, breaker.hedge, breaker.rejected and breaker.gave_up, as package breakerotel describes
// them.
//
// A bulkhead's place, and that of an adaptive limit, is given back when the header of the response has come, not when
// its body has been read: they bound the requests that wait for the service. How fast a body is read is the caller's
// affair, and one that forgets to close it would take a place away for good. What bounds open bodies is MaxConnsPerHost
// of an http.Transport as the base.
package breakerhttp
