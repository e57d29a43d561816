// Package breakergrpc guards the calls of a gRPC client connection: unary and stream interceptors with a circuit
// breaker for each target.
//
//	opts := append(breakergrpc.DialOptions(breakergrpc.Config{}), grpc.WithTransportCredentials(creds))
//	conn, err := grpc.NewClient("users:9000", opts...)
//
// # Guarantees
//
//   - DeadlineExceeded, Internal, Unavailable, DataLoss and ResourceExhausted are failures. Every other status is a
//     success, for the service works; what the caller cancels counts as nothing.
//   - A rejection has the status Unavailable, and is breaker.ErrOpen, ErrFull, ErrLimited or ErrOverloaded under
//     errors.Is.
//   - An error that arises on this side, such as a message that cannot be encoded, counts as nothing:
//     docs/local-errors.md lists them.
//   - Config.Key divides the calls to a target among several breakers: by method, service or tenant.
//   - Unary calls have the attempt timeout, and are repeated only when Config.Breaker.Retry asks for it and
//     Config.Idempotent says that the method bears it.
//   - A stream counts when its first message arrives, or when it ends before: a long stream is no slow call, and a
//     stream that a proxy cuts after an hour is no failure. Timeout and retry are not for streams.
//   - The correlation id and the trace of the context travel in the metadata.
//
// # What it does not do
//
// It makes no spans: add otelgrpc's stats handler for those. To the span that is in the context it adds the events
// breaker.retry, breaker.rejected and breaker.gave_up, as package breakerotel describes them. gRPC's own retries and
// hedging, set by a service config, happen inside one attempt and are not seen. It sends no pings: a connection that
// has gone silent is used until TCP gives up, after about 15 minutes, unless grpc.WithKeepaliveParams is among the
// options and the server's keepalive.EnforcementPolicy allows it.
package breakergrpc
