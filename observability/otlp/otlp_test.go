package otlp_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/otlp"
)

func clearEnv(t *testing.T) {
	for _, n := range []string{"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		t.Setenv(n, "")
	}
}

func TestNothingSet(t *testing.T) {
	clearEnv(t)
	if e, err := otlp.FromEnv(t.Context()); e != nil || err != nil {
		t.Errorf("%v, %v", e, err)
	}
}

func TestExports(t *testing.T) {
	clearEnv(t)
	var posts atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/traces" {
			posts.Add(1)
		}
	}))
	defer srv.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	run(t, nil)
	if posts.Load() == 0 {
		t.Error("nothing was exported")
	}
}

// TestDeadEndpoint has an endpoint that refuses connections and one that takes them and says nothing.
func TestDeadEndpoint(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, address := range []string{"127.0.0.1:1", silent.Addr().String()} {
		for _, protocol := range []string{"grpc", "http/protobuf"} {
			clearEnv(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+address)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			start := time.Now()
			run(t, func() {
				if d := time.Since(start); d > time.Second { // exporting would wait for 10 s
					t.Errorf("%s to %s: start-up and 3000 spans took %s", protocol, address, d)
				}
			})
			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("%s to %s: with a shutdown within 1 s it took %s", protocol, address, d)
			}
		}
	}
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke")
	if _, err := otlp.FromEnv(t.Context()); err == nil {
		t.Error("an unknown protocol was accepted")
	}
}

func run(t *testing.T, before func()) {
	t.Helper()
	e, err := otlp.FromEnv(t.Context())
	if err != nil || len(e) != 1 {
		t.Fatal(e, err)
	}
	tel := observability.Must(t.Context(), observability.Config{Service: "s", LogWriter: discard{}, SpanExporters: e, ShutdownTimeout: time.Second})
	n := 1
	if before != nil {
		n = 3000
	}
	for range n {
		_, _ = observability.Trace(tel.With(t.Context()), "x", func(context.Context) (int, error) { return 0, nil })
	}
	if before != nil {
		before()
	}
	_ = tel.Shutdown(t.Context()) // a dead endpoint makes it end by its deadline
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
