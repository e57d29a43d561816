package otlplog_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/otlplog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector receives logs over both protocols, and writes a record as a line.
type collector struct {
	collogs.UnimplementedLogsServiceServer
	mu    sync.Mutex
	lines []string
}

func (c *collector) Export(_ context.Context,
	req *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rl := range req.GetResourceLogs() {
		service := ""
		for _, a := range rl.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, sl := range rl.GetScopeLogs() {
			for _, r := range sl.GetLogRecords() {
				var b strings.Builder
				fmt.Fprintf(&b, "%s %s %s trace=%x", service, r.GetSeverityText(), r.GetBody().GetStringValue(), r.GetTraceId())
				for _, a := range r.GetAttributes() {
					fmt.Fprintf(&b, " %s=%s", a.GetKey(), strings.Join(strings.Fields(a.GetValue().String()), " "))
				}
				c.lines = append(c.lines, b.String())
			}
		}
	}
	return &collogs.ExportLogsServiceResponse{}, nil
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	raw, err := io.ReadAll(body)
	var req collogs.ExportLogsServiceRequest
	if err != nil || proto.Unmarshal(raw, &req) != nil || r.URL.Path != "/v1/logs" {
		http.Error(w, "no OTLP", http.StatusBadRequest)
		return
	}
	_, _ = c.Export(r.Context(), &req)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// What a service logs arrives over both protocols beside its lines, with the ids of its context, and from the level on
// that is asked for. A secret arrives hidden.
func TestRecordsArriveBesideTheLines(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			c := &collector{}
			var endpoint string
			if protocol == "grpc" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				srv := grpc.NewServer()
				collogs.RegisterLogsServiceServer(srv, c)
				go func() { _ = srv.Serve(l) }()
				defer srv.Stop()
				endpoint = "http://" + l.Addr().String()
			} else {
				srv := httptest.NewServer(c)
				defer srv.Close()
				endpoint = srv.URL
			}
			t.Setenv("OTEL_LOGS_EXPORTER", "otlp")
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			sendAndCompare(t, c)
			if strings.Contains(c.lines[0], "hunter2") {
				t.Errorf("the record shows the secret: %s", c.lines[0])
			}
		})
	}
}

// sendAndCompare writes records and compares what the collector received with the lines.
func sendAndCompare(t *testing.T, c *collector) {
	t.Helper()
	logs, err := otlplog.FromEnv(t.Context(), otlplog.Config{Service: "orders", Level: slog.LevelWarn})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	tel, err := observability.New(t.Context(), observability.Config{Service: "orders", LogWriter: &out,
		LogHandlers: logs.Handlers()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := observability.WithCorrelationID(t.Context(), "corr-1")
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab}, SpanID: trace.SpanID{1}}))
	tel.Logger.InfoContext(ctx, "not sent")
	tel.Logger.With("user", "ana").WithGroup("card").WarnContext(ctx, "declined", "code", 7,
		"pin", observability.NewSecret("hunter2"))
	if err := logs.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 || strings.Contains(out.String(), "hunter2") {
		t.Errorf("got %d lines, want 2:\n%s", n, out.String())
	}
	if len(c.lines) != 1 {
		t.Fatalf("got the records %q, want one", c.lines)
	}
	for _, want := range []string{"orders WARN declined trace=ab0000", `user=string_value:"ana"`,
		`correlation_id=string_value:"corr-1"`, "code", "int_value:7"} {
		if !strings.Contains(c.lines[0], want) {
			t.Errorf("the record lacks %s: %s", want, c.lines[0])
		}
	}
}

// Without the variable nothing is sent, and what is not known is refused by name.
func TestFromEnvSendsOnlyWhenAsked(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	for asked, want := range map[string]string{"": "", "none": "", "console": "OTEL_LOGS_EXPORTER"} {
		t.Setenv("OTEL_LOGS_EXPORTER", asked)
		logs, err := otlplog.FromEnv(t.Context(), otlplog.Config{Service: "orders"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", asked, err)
		}
		if len(logs.Handlers()) != 0 || logs.Shutdown(t.Context()) != nil {
			t.Errorf("%q: something is sent", asked)
		}
	}
	t.Setenv("OTEL_LOGS_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke")
	if _, err := otlplog.FromEnv(t.Context(), otlplog.Config{Service: "orders"}); err == nil {
		t.Error("an unknown protocol was accepted")
	}
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "")
	if _, err := otlplog.FromEnv(t.Context(), otlplog.Config{}); err == nil {
		t.Error("a service without a name was accepted")
	}
}

// A collector that accepts and never answers delays no caller, and Shutdown reports what it could not send.
func TestFrozenCollectorDelaysNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("OTEL_LOGS_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	logs, err := otlplog.FromEnv(t.Context(), otlplog.Config{Service: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(logs.Handlers()[0])
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 10_000 { // more than the queue holds
			log.Info("order", "n", n)
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("10,000 lines wait for a collector that does not answer")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := logs.Shutdown(ctx); err == nil {
		t.Error("Shutdown returned nil, and nothing was sent")
	}
}
