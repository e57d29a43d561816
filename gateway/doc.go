// Package gateway is an API gateway: an http.Handler that verifies the caller and sends each request to the service
// that its path names.
//
//	gw, err := gateway.New(gateway.Config{
//	    Auth: verifier,
//	    Routes: []gateway.Route{
//	        {Prefix: "/users", Upstreams: []string{"http://users:8000"}, Public: []string{"POST /token"}},
//	        {Prefix: "/orders", Upstreams: []string{"http://orders-1:8002", "http://orders-2:8002"}, Roles: roles},
//	    },
//	})
//	...
//	go gw.Run(ctx) // looks at the instances
//	err = gateway.NewServer(":8080", gw).ListenAndServe()
//
// Routes are chosen by host, prefix, method and header. Upstreams are addresses, or names that DNS or another Registry
// finds the instances of: "dns+http://users:8000". It answers /health, /health/services and /openapi.json itself,
// unless a route has that very prefix; the latter two only to callers that a route admits.
//
// # Guarantees
//
//   - Bodies stream both ways: nothing is kept or encoded again. Server-sent events, WebSocket, gRPC and HTTP/2 without
//     TLS pass.
//   - Paths are matched as they are escaped, by whole segments. Dot segments, backslashes, control characters, overlong
//     UTF-8 and encoded slashes get 400, before and after rewriting, and so does a spelling that a service would take
//     for another route's path.
//   - X-User-ID, X-User-Roles, the X-Forwarded headers and Config.Claims' are removed from every request, under every
//     spelling that a service could read as them, and then set by the gateway alone. Request trailers that were not
//     declared are dropped, and those of these names.
//   - Server's connections are guarded: a request with both Content-Length and Transfer-Encoding, and others that
//     servers are known to read differently, get 400, and what follows a malformed body is never read as a request. See
//     Guard.
//   - What may not be processed twice is sent once: only idempotent requests, and those that no service has seen, are
//     retried, within a budget, and only while nothing of the body has been read.
//   - Errors are problem+json with the correlation id. They contain no text of the service or of the network. When a
//     client disconnects, the request to the service ends; logs and metrics have status 499, and it does not count as a
//     failure of the service.
//   - Each instance has a circuit breaker, which only missing answers and 5xx open, but not 501 and 505. What a client
//     sent wrong opens none. When more breakers are open than Route.MaxEjection allows, none is followed.
//   - While instances restart one after the other, no idempotent request fails within the retry budget, and of others
//     only those whose outcome is unknown, if an instance accepts connections again within Route.DialWait.
//   - A request has one server span, that of middleware around the gateway where there is one, and a client span for
//     each attempt, whose context the service gets.
//   - A reload fails no request. With an invalid configuration the old one goes on serving.
//
// docs/gateway.md lists what is removed, added and refused, why, and the test of each.
//
// docs/coming-from-traefik.md shows what settings of Traefik, KrakenD and nginx are here.
//
// # What it does not do
//
// It makes no tokens and compresses nothing. It has no cache, aggregates no answers, translates no gRPC-Web, loads no
// plugins at run time and has no admin API: Route.Middleware is Go, and Reload and gatewayyaml.Watch change routes.
// Routes have no regular expressions. Go's resolver hides the TTL of DNS records, so names are asked again each
// DNS.Interval. It changes no Location and no cookie's path: services learn their prefix from X-Forwarded-Prefix.
// Behind an http.Server without Guard, a request with both Content-Length and Transfer-Encoding is not refused:
// net/http drops the length and reads the body as chunked, and so it is passed on.
package gateway
