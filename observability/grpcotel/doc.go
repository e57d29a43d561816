// Package grpcotel gives gRPC servers and clients the telemetry of package observability, in one line each:
//
//	server := grpc.NewServer(grpcotel.Server(tel)...)
//	conn, err := grpc.NewClient(target, append(grpcotel.Client(tel), creds)...)
//
// # Guarantees
//
//   - A call has a span on both sides, and carries the correlation id and the trace context in its metadata.
//   - The server writes one log line a call with method, code and duration, counts it in
//     rpc_server_call_duration_seconds, and calls handlers with a context that carries the Telemetry and a correlation
//     id.
//   - A panic of a handler is a codes.Internal to the client, and a log line with the stack; the process goes on.
//   - Health checks (grpc.health.v1) and reflection have neither spans nor log lines, unless they fail.
//
// # What it does not do
//
// It does not log the messages of calls, nor the text of errors that handlers return: log them where they happen. Other
// interceptors come after these: append them to the options.
package grpcotel
