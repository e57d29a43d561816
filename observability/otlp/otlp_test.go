package otlp_test

import (
	"testing"

	"github.com/sillar-go/sillar/observability/otlp"
)

func clearEnv(t *testing.T) {
	for _, n := range []string{"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		t.Setenv(n, "")
	}
}

func TestNothingIsSentWithoutAnEndpoint(t *testing.T) {
	clearEnv(t)
	if e, err := otlp.FromEnv(t.Context()); e != nil || err != nil {
		t.Errorf("%v, %v", e, err)
	}
}

func TestUnknownProtocolIsRefused(t *testing.T) {
	clearEnv(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke")
	if _, err := otlp.FromEnv(t.Context()); err == nil {
		t.Error("an unknown protocol was accepted")
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
