package otlp_test

import (
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/otlp"
)

// receiver is a collector for both protocols.
type receiver struct {
	coltrace.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string]string // by name, of which service
	auth  string
}

func (c *receiver) take(req *coltrace.ExportTraceServiceRequest, auth string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.auth = auth
	for _, rs := range req.GetResourceSpans() {
		service := ""
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans[s.GetName()] = service
			}
		}
	}
}

func (c *receiver) Export(ctx context.Context,
	req *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	c.take(req, strings.Join(md.Get("x-key"), ","))
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	raw, err := io.ReadAll(body)
	var req coltrace.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(raw, &req)
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "no OTLP", http.StatusBadRequest)
		return
	}
	c.take(&req, r.Header.Get("X-Key"))
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Spans arrive over both protocols, with the service's name and the headers of the environment.
func TestSpansArrive(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		c := &receiver{spans: map[string]string{}}
		var url string
		if protocol == "grpc" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := grpc.NewServer()
			coltrace.RegisterTraceServiceServer(srv, c)
			go func() { _ = srv.Serve(l) }()
			defer srv.Stop()
			url = "http://" + l.Addr().String()
		} else {
			srv := httptest.NewServer(c)
			defer srv.Close()
			url = srv.URL
		}
		clearEnv(t)
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
		t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k1")
		e, err := otlp.FromEnv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tel := observability.Must(observability.New(t.Context(), observability.Config{Service: "orders", LogWriter: discard{},
			SpanExporters: e}))
		mux := tel.Mux()
		mux.HandleFunc("GET /orders/{id}", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = observability.Trace(r.Context(), "read", func(context.Context) (int, error) { return 0, nil })
		})
		tel.Middleware(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/orders/7", nil))
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		c.mu.Lock()
		if c.spans["GET /orders/{id}"] != "orders" || c.spans["read"] != "orders" || c.auth != "k1" {
			t.Errorf("%s: arrived %v, key %q", protocol, c.spans, c.auth)
		}
		c.mu.Unlock()
	}
}

// slow is the longest that a request may take beside a dead collector: scheduling, nothing else.
const slow = 500 * time.Millisecond

// A collector that refuses, is silent or says 503 delays neither start nor request nor, beyond its bound, the end; and
// what waits for it is bounded.
func TestDeadCollectorSlowsNothing(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer busy.Close()
	for _, c := range []struct{ name, url, protocol string }{
		{"refused", "http://127.0.0.1:1", "grpc"}, {"refused", "http://127.0.0.1:1", "http/protobuf"},
		{"silent", "http://" + silent.Addr().String(), "grpc"}, {"silent", "http://" + silent.Addr().String(),
			"http/protobuf"},
		{"503", busy.URL, "http/protobuf"}, {"no gRPC", busy.URL, "grpc"},
	} {
		clearEnv(t)
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.url)
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", c.protocol)
		log := &counting{}
		var tel *observability.Telemetry
		start := time.Hour
		for range 3 { // the best of three: other programs run here, too
			begun := time.Now()
			e, err := otlp.FromEnv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if tel != nil {
				_ = tel.Shutdown(t.Context())
			}
			tel = observability.Must(observability.New(t.Context(), observability.Config{Service: "s", LogWriter: log,
				SpanExporters: e, QueueSize: 512, ShutdownTimeout: 300 * time.Millisecond}))
			start = min(start, time.Since(begun))
		}
		if start > 100*time.Millisecond {
			t.Errorf("%s, %s: the start took %s", c.name, c.protocol, start)
		}
		h := tel.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for range 2000 { // four times the queue
			begun := time.Now()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ready", nil))
			if took := time.Since(begun); took > slow {
				t.Errorf("%s, %s: a request took %s", c.name, c.protocol, took)
			}
		}
		begun := time.Now()
		_ = tel.Shutdown(t.Context())
		if took := time.Since(begun); took > 300*time.Millisecond+slow {
			t.Errorf("%s, %s: the end took %s", c.name, c.protocol, took)
		}
		if n := log.n.Load(); n > 2 {
			t.Errorf("%s, %s: it was logged %d times", c.name, c.protocol, n)
		}
	}
}

// counting is a log that counts lines.
type counting struct{ n atomic.Int64 }

func (c *counting) Write(b []byte) (int, error) { c.n.Add(1); return len(b), nil }
