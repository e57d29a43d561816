// Package otlp makes the exporters that send spans by OTLP, so that only programs that want them link them.
//
//	exporters, err := otlp.FromEnv(ctx)
//	tel, err := observability.New(ctx, observability.Config{Service: "orders", SpanExporters: exporters})
//
// It reads the standard variables: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
// OTEL_EXPORTER_OTLP_PROTOCOL (grpc or http/protobuf, the default), _HEADERS, _TIMEOUT, _CERTIFICATE and the others
// that OpenTelemetry's exporters know. With no endpoint set there is no exporter, and nothing is dialled. A collector
// that does not answer delays nothing: spans wait in a bounded queue, and the newest are dropped when it is full.
package otlp
