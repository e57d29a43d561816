package grpcotel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/observability/grpcotel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) all(t *testing.T) (out []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, m)
	}
	return out
}

// keep is an exporter whose spans outlive its shutdown.
type keep struct{ *tracetest.InMemoryExporter }

func (keep) Shutdown(context.Context) error { return nil }

func newTel(t *testing.T) (*observability.Telemetry, *lines, *tracetest.InMemoryExporter) {
	t.Helper()
	log, spans := &lines{}, tracetest.NewInMemoryExporter()
	tel, err := observability.New(t.Context(), observability.Config{
		Service: "s", LogWriter: log, SpanExporters: []sdktrace.SpanExporter{keep{spans}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tel, log, spans
}

// serve serves handle under /test.S/{Unary,Stream} and returns a connection.
func serve(
	t *testing.T, server, client *observability.Telemetry, handle func(ctx context.Context) error,
) (*grpc.ClientConn, *grpc.Server) {
	t.Helper()
	srv := grpc.NewServer(grpcotel.Server(server)...)
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.S",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(_ any, ctx context.Context, dec func(any) error, next grpc.UnaryServerInterceptor) (any, error) {
				in := &emptypb.Empty{}
				if err := dec(in); err != nil {
					return nil, err
				}
				return next(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.S/Unary"},
					func(ctx context.Context, _ any) (any, error) {
						return in, handle(ctx)
					})
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName:    "Stream",
			ServerStreams: true,
			Handler:       func(_ any, s grpc.ServerStream) error { return handle(s.Context()) },
		}},
	}, nil)
	l := bufconn.Listen(1 << 16)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///s", append(grpcotel.Client(client),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		<-done
	})
	return conn, srv
}

func callStream(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.S/Stream")
	if err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return s.RecvMsg(&emptypb.Empty{})
}

func TestCallsShareTraceAndCorrelationID(t *testing.T) {
	server, serverLog, serverSpans := newTel(t)
	client, _, clientSpans := newTel(t)
	var ids []string
	var carried []*observability.Telemetry
	conn, srv := serve(t, server, client, func(ctx context.Context) error {
		ids, carried = append(ids, observability.CorrelationID(ctx)), append(carried, observability.FromContext(ctx))
		return status.Error(codes.NotFound, "none")
	})
	ctx := observability.WithCorrelationID(t.Context(), "id-1")
	for name, call := range map[string]func() error{
		"unary":  func() error { return conn.Invoke(ctx, "/test.S/Unary", &emptypb.Empty{}, &emptypb.Empty{}) },
		"stream": func() error { return callStream(ctx, conn) },
	} {
		if err := call(); status.Code(err) != codes.NotFound {
			t.Errorf("%s: got %v, want the handler's NotFound", name, err)
		}
	}
	srv.GracefulStop() // the spans of the server end after the client has its answer
	rec := httptest.NewRecorder()
	server.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(rec.Body.String(), "rpc_server_call_duration_seconds_count{") {
		t.Error("the server's calls are not in rpc_server_call_duration_seconds")
	}
	if err := client.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(ids) != 2 || ids[0] != "id-1" || ids[1] != "id-1" || carried[0] != server || carried[1] != server {
		t.Errorf("handlers got the correlation ids %v and Telemetries %v", ids, carried)
	}
	parents := map[string]string{}
	for _, s := range clientSpans.GetSpans() {
		parents[s.SpanContext.SpanID().String()] = s.SpanContext.TraceID().String()
	}
	got := serverSpans.GetSpans()
	if len(got) != 2 || len(parents) != 2 {
		t.Fatalf("%d spans of the server and %d of the client, want 2 and 2", len(got), len(parents))
	}
	for _, s := range got {
		if parents[s.Parent.SpanID().String()] != s.SpanContext.TraceID().String() {
			t.Errorf("the span %s has no client span as its parent", s.Name)
		}
	}
	logged := serverLog.all(t)
	if len(logged) != 2 {
		t.Fatalf("%d lines, want 2: %v", len(logged), logged)
	}
	for _, line := range logged {
		if line["level"] != "INFO" || line["code"] != "NotFound" || line["correlation_id"] != "id-1" ||
			line["trace_id"] == nil ||
			!strings.HasPrefix(line["method"].(string), "/test.S/") {
			t.Errorf("got the line %v", line)
		}
	}
}

func TestPanicIsInternal(t *testing.T) {
	server, log, _ := newTel(t)
	client, _, _ := newTel(t)
	conn, srv := serve(t, server, client, func(context.Context) error { panic("kaboom") })
	for _, call := range []func() error{
		func() error { return conn.Invoke(t.Context(), "/test.S/Unary", &emptypb.Empty{}, &emptypb.Empty{}) },
		func() error { return callStream(t.Context(), conn) },
	} {
		if err := call(); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "kaboom") {
			t.Errorf("got %v, want Internal without the text of the panic", err)
		}
	}
	srv.GracefulStop()
	for _, line := range log.all(t) {
		if line["level"] != "ERROR" || line["panic"] != "kaboom" || line["stack"] == nil || line["correlation_id"] == nil {
			t.Errorf("got the line %v, want an error with panic, stack and correlation_id", line)
		}
	}
	_, _ = client.Shutdown(t.Context()), server.Shutdown(t.Context())
}

func TestUnknownMethodsMakeNoSeries(t *testing.T) {
	server, _, _ := newTel(t)
	client, _, _ := newTel(t)
	conn, srv := serve(t, server, client, func(context.Context) error { return nil })
	for _, m := range []string{"a", "b", "c", "d"} {
		err := conn.Invoke(t.Context(), "/test.S/"+m, &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) != codes.Unimplemented {
			t.Fatal(err)
		}
	}
	srv.GracefulStop()
	families, err := server.Gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "rpc_server_") && len(f.GetMetric()) > 1 {
			t.Errorf("%s has %d series for methods that clients invented: %v", f.GetName(), len(f.GetMetric()), f.GetMetric())
		}
	}
	_, _ = client.Shutdown(t.Context()), server.Shutdown(t.Context())
}
