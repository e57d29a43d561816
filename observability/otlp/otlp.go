package otlp

import (
	"context"
	"fmt"
	"os"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// FromEnv returns the exporter that the environment asks for, or none.
func FromEnv(ctx context.Context) ([]sdktrace.SpanExporter, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") ||
		strings.EqualFold(os.Getenv("OTEL_TRACES_EXPORTER"), "none") {
		return nil, nil
	}
	if either("ENDPOINT") == "" {
		return nil, nil
	}
	var e sdktrace.SpanExporter
	var err error
	switch p := either("PROTOCOL"); p {
	case "", "http/protobuf":
		e, err = otlptracehttp.New(ctx)
	case "grpc":
		e, err = otlptracegrpc.New(ctx) // connects when the first spans come
	default:
		return nil, fmt.Errorf("otlp: OTEL_EXPORTER_OTLP_PROTOCOL is %q, known are grpc and http/protobuf", p)
	}
	if err != nil {
		return nil, fmt.Errorf("otlp: make the exporter: %w", err)
	}
	return []sdktrace.SpanExporter{e}, nil
}

// either returns the variable for traces, or else the one for all signals.
func either(name string) string {
	if v := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
		return v
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_" + name)
}
