package gateway_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/observability"
)

const stranger = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func recorder(t *testing.T) (*tracetest.SpanRecorder, trace.TracerProvider) {
	rec := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return rec, p
}

// ended waits for n spans: a server's span ends after its client has the answer.
func ended(t *testing.T, rec *tracetest.SpanRecorder, n int) []sdktrace.ReadOnlySpan {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(rec.Ended()) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d spans, want %d", len(rec.Ended()), n)
		}
	}
	return rec.Ended()
}

func attr(s sdktrace.ReadOnlySpan, key attribute.Key) attribute.Value {
	for _, a := range s.Attributes() {
		if a.Key == key {
			return a.Value
		}
	}
	return attribute.Value{}
}

func TestSpansJoinTheTraceOfTheClient(t *testing.T) {
	flaky := upstream(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	rec, tp := recorder(t)
	_, url := start(t, gateway.Config{TracerProvider: tp, Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{flaky, echoing(t)}, Balance: gateway.RoundRobin, RetryBudget: -1,
			Breaker: breaker.Config{Failures: -1}}}})
	var e echo
	for range 2 { // one of them meets the flaky instance first
		e = do(t, "GET", url+"/a/x?secret=1", "", "Traceparent", stranger).echo(t)
	}
	spans := ended(t, rec, 5)
	var server sdktrace.ReadOnlySpan
	resent := 0
	for _, s := range spans {
		if s.SpanContext().TraceID().String() != stranger[3:35] {
			t.Errorf("%s is in trace %s", s.Name(), s.SpanContext().TraceID())
		}
		for _, a := range s.Attributes() {
			if strings.Contains(a.Value.String(), "secret") {
				t.Errorf("%s says %v", s.Name(), a)
			}
		}
		switch s.SpanKind() {
		case trace.SpanKindServer:
			server = s
			if s.Name() != "GET /a" || s.Parent().SpanID().String() != stranger[36:52] ||
				attr(s, "http.response.status_code").AsInt64() != 200 {
				t.Errorf("server: %s %v %v", s.Name(), s.Parent().SpanID(), s.Attributes())
			}
		case trace.SpanKindClient:
			status := attr(s, "http.response.status_code").AsInt64()
			if s.Name() != "GET" || attr(s, "server.address").AsString() != "127.0.0.1" ||
				attr(s, "server.port").AsInt64() == 0 ||
				(status == 503) != (s.Status().Code == codes.Error) {
				t.Errorf("client: %s %v %v", s.Name(), s.Attributes(), s.Status())
			}
			resent += int(attr(s, "http.request.resend_count").AsInt64())
		default:
			t.Errorf("%s is %s", s.Name(), s.SpanKind())
		}
	}
	last := slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool {
		return s.SpanKind() == trace.SpanKindClient && s.Parent().SpanID() == server.SpanContext().SpanID() &&
			attr(s, "http.response.status_code").AsInt64() == 200
	})
	if last < 0 || resent != 1 {
		t.Fatalf("the last request has no attempt that succeeded, or %d were resent", resent)
	}
	if got := e.Header.Get("Traceparent"); got != "00-"+stranger[3:35]+"-"+spans[last].SpanContext().SpanID().String()+
		"-01" {
		t.Errorf("the service received %s", got)
	}
}

func TestAttemptThatFailsHasASpan(t *testing.T) {
	rec, tp := recorder(t)
	_, url := start(t, gateway.Config{TracerProvider: tp,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{"http://127.0.0.1:1"}, DialWait: -1, Attempts: 1}}})
	do(t, "GET", url+"/a", "")
	s := ended(t, rec, 2)[0]
	if s.SpanKind() != trace.SpanKindClient || s.Status().Code != codes.Error ||
		attr(s, "error.type").AsString() != "_OTHER" {
		t.Fatalf("%s %v %v", s.SpanKind(), s.Status(), s.Attributes())
	}
}

// A stranger decides nothing.
func TestPublicEdgeStartsTracesAnew(t *testing.T) {
	rec, tp := recorder(t)
	routes := []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}
	_, url := start(t, gateway.Config{TracerProvider: tp, PublicEdge: true, Routes: routes})
	e := do(t, "GET", url+"/a", "", "Traceparent", stranger, "Tracestate", "a=b", "Baggage", "admin=1").echo(t)
	s := ended(t, rec, 2)[1]
	if s.Parent().IsValid() || len(s.Links()) != 1 || s.Links()[0].SpanContext.SpanID().String() != stranger[36:52] {
		t.Errorf("parent %v, links %v", s.Parent(), s.Links())
	}
	if e.Header.Get("Baggage") != "" || e.Header.Get("Tracestate") != "" || strings.Contains(e.Header.Get("Traceparent"),
		stranger[3:35]) {
		t.Errorf("the service received %v", e.Header)
	}
	both := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	for public, want := range map[bool]string{true: "", false: "admin=1"} { // with a propagator that would carry it
		_, url = start(t, gateway.Config{PublicEdge: public, Propagator: both, Routes: routes})
		if e := do(t, "GET", url+"/a", "", "Baggage", "admin=1").echo(t); e.Header.Get("Baggage") != want {
			t.Errorf("public %v: the service received %v", public, e.Header)
		}
	}
	_, url = start(t, gateway.Config{PublicEdge: true, Routes: routes}) // and without tracing
	if e := do(t, "GET", url+"/a", "", "Traceparent", stranger, "Baggage",
		"admin=1").echo(t); e.Header.Get("Traceparent") != "" || e.Header.Get("Baggage") != "" {
		t.Errorf("the service received %v", e.Header)
	}
}

// Where middleware has made a span of the request, that is the request's, and what it did not believe stays unbelieved.
func TestSpanOfMiddleware(t *testing.T) {
	exporter := &keeping{}
	tel := observability.Must(observability.New(t.Context(), observability.Config{Service: "edge", PublicEdge: true,
		SpanExporters: []sdktrace.SpanExporter{exporter}, LogWriter: io.Discard}))
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Logger: tel.Logger, TracerProvider: tel.TracerProvider,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}}))
	srv := httptest.NewServer(tel.Middleware(gw))
	t.Cleanup(gw.CloseIdleConnections)
	e := do(t, "GET", srv.URL+"/a/x", "", "Traceparent", stranger, "X-Correlation-Id", "mine").echo(t)
	http.DefaultClient.CloseIdleConnections()
	srv.Close()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(exporter.names) != 2 || !slices.Contains(exporter.names, "server GET /a") || !slices.Contains(exporter.names,
		"client GET") {
		t.Errorf("spans: %v", exporter.names)
	}
	if e.Header.Get("X-Correlation-Id") != "mine" || strings.Contains(e.Header.Get("Traceparent"), stranger[3:35]) ||
		e.Header.Get("Traceparent") == "" {
		t.Errorf("the service received %v", e.Header)
	}
}

// keeping keeps the names of spans.
type keeping struct{ names []string }

func (k *keeping) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		k.names = append(k.names, s.SpanKind().String()+" "+s.Name())
	}
	return nil
}

func (k *keeping) Shutdown(context.Context) error { return nil }

// A line has its correlation id once, whichever part writes it.
func TestCorrelationIDIsLoggedOnce(t *testing.T) {
	var plain, ours logs
	for _, c := range []struct {
		h   slog.Handler
		out *logs
	}{{slog.NewJSONHandler(&plain, nil), &plain}, {observability.NewLogHandler(&ours, observability.LogConfig{}), &ours}} {
		_, url := start(t, gateway.Config{Logger: slog.New(c.h),
			Routes: []gateway.Route{{Prefix: "/gone", Upstreams: []string{"http://127.0.0.1:1"}, DialWait: -1}}})
		do(t, "GET", url+"/gone", "", "X-Correlation-Id", "mine-7")
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(c.out.String(),
			"gateway: request"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no line")
			}
		}
		for line := range strings.Lines(c.out.String()) {
			var doc map[string]any
			if err := json.Unmarshal([]byte(line), &doc); err != nil {
				t.Fatal(err)
			}
			if n := len(regexp.MustCompile("mine-7").FindAllString(line, -1)); n != 1 || doc["correlation_id"] != "mine-7" {
				t.Errorf("%T: %s", c.h, line)
			}
		}
	}
}

// Declared trailers may come after the body, but no identity header.
func TestRequestTrailers(t *testing.T) {
	for name, up := range map[string]string{"http": echoing(t), "h2c": echoingH2C(t)} {
		_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
		text := raw(t, url,
			"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Checksum, X-User-ID, X_User_Id, "+
				"Authorization, Missing\r\nConnection: close\r\n\r\n"+
				"1\r\nx\r\n0\r\nChecksum: 7\r\nX-User-ID: root\r\nX_User_Id: root\r\nAuthorization: Bearer root\r\nUndeclared: "+
				"1\r\n\r\n")
		_, body, _ := strings.Cut(text, "\r\n\r\n")
		var e echo
		if err := json.NewDecoder(strings.NewReader(body[strings.Index(body, "{"):])).Decode(&e); err != nil {
			t.Fatalf("%q", text)
		}
		got := ""
		for k, v := range e.Trailer {
			if len(v) > 0 {
				got += k + "=" + v[0]
			}
		}
		if got != "Checksum=7" || e.Body != "x" {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func echoingH2C(t *testing.T) string {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(echo{r.Method, r.RequestURI, r.Header, r.Trailer, string(body)})
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "http:", "h2c:", 1)
}

// The middleware around a gateway writes a line for each request; the gateway's own would be the second.
func TestNoAccessLogLeavesOutTheLineOfEachRequest(t *testing.T) {
	for _, off := range []bool{false, true} {
		var out logs
		gw, err := gateway.New(gateway.Config{
			Anonymous:   true,
			NoAccessLog: off,
			Logger:      slog.New(slog.NewJSONHandler(&out, nil)),
			Routes:      []gateway.Route{{Prefix: "/a", Upstreams: []string{"http://127.0.0.1:1"}, DialWait: -1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/none", nil))
		if got := strings.Contains(out.String(), "gateway: request"); got == off {
			t.Errorf("NoAccessLog %v: a line is written: %v", off, got)
		}
	}
}

// Exporters lose a batch of spans for one that is no UTF-8.
func TestPathsInSpansAreUTF8(t *testing.T) {
	rec, tp := recorder(t)
	_, url := start(t, gateway.Config{TracerProvider: tp, Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	raw(t, url, "GET /a/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	for _, s := range ended(t, rec, 2) {
		if path := attr(s, "url.path").AsString(); !utf8.ValidString(path) || !strings.Contains(path, "\uFFFD") {
			t.Errorf("%s has the path %q, want one with U+FFFD", s.Name(), path)
		}
	}
}
