// Package otlplog sends log records by OTLP, beside the lines that a service writes, so that only programs that want it
// link the exporters.
//
//	logs, err := otlplog.FromEnv(ctx, otlplog.Config{Service: "orders"})
//	defer logs.Shutdown(ctx)
//	tel, err := observability.New(ctx, observability.Config{Service: "orders", LogHandlers: logs.Handlers()})
//
// Logs are sent where OTEL_LOGS_EXPORTER is "otlp". It has to be set: lines are written either way, and most
// deployments collect those. The address and the rest follow OTEL_EXPORTER_OTLP_LOGS_* and OTEL_EXPORTER_OTLP_*,
// batches OTEL_BLRP_*, as OpenTelemetry's exporters read them.
//
// # Guarantees
//
//   - A record has the trace and span id of its context, the correlation id as the attribute correlation_id, and the
//     service as its resource.
//   - A collector that does not answer delays no caller: records wait in a bounded queue.
//   - Shutdown sends what waits, within its context, and returns an error for what it could not send.
//
// # What it does not do
//
// It is no substitute for the lines: a crash loses what has not been sent yet, and a full queue drops records. It is
// built on OpenTelemetry's SDK for logs and its slog bridge.
package otlplog
