package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

func TestEventsOutliveTheTimeout(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range 4 {
			fmt.Fprintf(w, "data: %d\n\n", n)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(60 * time.Millisecond)
		}
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{up}, Timeout: 100 * time.Millisecond},
		{Prefix: "/idle", Upstreams: []string{up}, IdleTimeout: 20 * time.Millisecond},
		{Prefix: "/total", Upstreams: []string{up}, TotalTimeout: 100 * time.Millisecond},
	}})
	begun := time.Now()
	res, err := http.Get(url + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	if line, _ := r.ReadString('\n'); line != "data: 0\n" || time.Since(begun) > 200*time.Millisecond {
		t.Fatalf("the first event: %q after %v", line, time.Since(begun))
	}
	if rest, err := io.ReadAll(r); err != nil || strings.Count(string(rest), "data:") != 3 {
		t.Fatalf("the rest: %q %v", rest, err)
	}
	for _, path := range []string{"/idle", "/total"} {
		res, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s did not end the stream: %q", path, text)
		}
		res.Body.Close()
	}
}

func TestWebSocket(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, append(text, r.Header.Get("X-User-ID")...)) != nil {
				return
			}
		}
	})
	_, url := start(t, gateway.Config{Auth: auth, Routes: []gateway.Route{{Prefix: "/ws", Upstreams: []string{up},
		Upgrade: true, Timeout: 50 * time.Millisecond}}})
	if _, _, err := websocket.Dial(t.Context(), url+"/ws", nil); err == nil {
		t.Fatal("without a token")
	}
	c, res, err := websocket.Dial(t.Context(), url+"/ws",
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer ana"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if len(res.Header.Values("X-Correlation-ID")) != 1 {
		t.Errorf("the upgrade's header: %v", res.Header)
	}
	for range 3 {
		if err := c.Write(t.Context(), websocket.MessageText, []byte("hi ")); err != nil {
			t.Fatal(err)
		}
		if _, text, err := c.Read(t.Context()); string(text) != "hi subject-of-ana" {
			t.Fatalf("%q %v", text, err)
		}
		time.Sleep(30 * time.Millisecond)
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
}

func TestGRPC(t *testing.T) {
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	reflection.Register(srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	up := []string{"h2c://" + l.Addr().String()}
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Name: "reflection", Prefix: "/grpc.reflection.v1.ServerReflection", Upstreams: up, KeepPrefix: true, MaxBody: -1},
		{Name: "health", Prefix: "/grpc.health.v1.Health", Upstreams: up, KeepPrefix: true},
	}})
	conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	// A status in a trailer, without a message.
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{Service: "x"}); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Fatalf("status: %v", err)
	}
	s, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // one answer before the next question: both ways at once
		list := &grpc_reflection_v1.ServerReflectionRequest_ListServices{}
		if err := s.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: list}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if err != nil || len(m.GetListServicesResponse().GetService()) == 0 {
			t.Fatalf("%v %v", m, err)
		}
	}
	_ = s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		t.Fatalf("the end: %v", err)
	}
}

func TestEarlyHintsCostNothing(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.Header().Set("Access-Control-Allow-Origin", "https://evil.example")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Correlation-Id", "theirs")
		_, _ = io.WriteString(w, "ok")
	})
	_, url := start(t, gateway.Config{CORS: &gateway.CORS{Origins: []string{"https://shop.example"}},
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int,
		h textproto.MIMEHeader) error {
		if hints++; code != 103 || h.Get("Link") == "" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%d %v", code, h)
		}
		return nil
	}})
	req, _ := http.NewRequestWithContext(ctx, "GET", url+"/a", nil)
	req.Header.Set("Origin", "https://shop.example")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := res.Header["Access-Control-Allow-Origin"]; hints != 1 || len(got) != 1 || got[0] != "https://shop.example" {
		t.Errorf("%d hints, allowed origins %v", hints, got)
	}
	if got := res.Header["X-Correlation-Id"]; len(got) != 1 || got[0] == "theirs" {
		t.Errorf("correlation ids %v", got)
	}
}

func TestCORS(t *testing.T) {
	_, url := start(t, gateway.Config{Auth: auth, CORS: &gateway.CORS{Origins: []string{"https://shop.example"},
		Credentials: true},
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	a := do(t, "OPTIONS", url+"/a", "", "Origin", "https://shop.example", "Access-Control-Request-Method", "PUT")
	if a.StatusCode != 204 || !strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "PUT") ||
		a.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("preflight: %d %v", a.StatusCode, a.Header)
	}
	a = do(t, "OPTIONS", url+"/a", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "PUT")
	if a.StatusCode != 204 || a.Header.Get("Access-Control-Allow-Origin") != "" ||
		a.Header.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("preflight of another: %d %v", a.StatusCode, a.Header)
	}
	a = do(t, "GET", url+"/a", "", "Origin", "https://shop.example")
	if a.StatusCode != 401 || a.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" ||
		!strings.Contains(a.Header.Get("Vary"), "Origin") {
		t.Errorf("an error: %d %v", a.StatusCode, a.Header)
	}
}

func TestSilentUpstream(t *testing.T) {
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{up}, Timeout: 100 * time.Millisecond, Attempts: 1},
		{Prefix: "/gone", Upstreams: []string{"http://127.0.0.1:1"}, DialWait: -1},
	}})
	if a := do(t, "POST", url+"/a", "x"); a.StatusCode != 504 {
		t.Errorf("silent: %d %s", a.StatusCode, a.text)
	}
	a := do(t, "GET", url+"/gone", "")
	if a.StatusCode != 502 || strings.Contains(a.text, "refused") || strings.Contains(a.text, "127.0.0.1") {
		t.Errorf("gone: %d %s", a.StatusCode, a.text)
	}
	// A slow upload is no silent service.
	r, w := io.Pipe()
	go func() {
		for range 5 {
			time.Sleep(40 * time.Millisecond)
			_, _ = io.WriteString(w, "x")
		}
		w.Close()
	}()
	begun := time.Now()
	res, err := http.Post(url+"/a", "text/plain", r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if took := time.Since(begun); took < 280*time.Millisecond {
		t.Errorf("a slow upload was given up after %v", took)
	}
}

func TestClientThatGoesAway(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	})
	var out logs
	changes := make(chan breaker.StateChange, 1)
	_, url := start(t, gateway.Config{Logger: slog.New(slog.NewTextHandler(&out, nil)),
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up},
			Breaker: breaker.Config{Failures: 1, OnStateChange: func(c breaker.StateChange) { changes <- c }}}}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, _ := http.NewRequestWithContext(ctx, "GET", url+"/a", nil)
	if _, err := http.DefaultClient.Do(req); err == nil {
		t.Fatal("no error")
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the service goes on")
	}
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(out.String(),
		"status=499"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no 499 in the log: %s", out.String())
		}
	}
	select {
	case c := <-changes:
		t.Fatalf("the breaker took it for a failure: %+v", c)
	default:
	}
}

func TestMergedDocumentsAndHealth(t *testing.T) {
	doc := `{"paths":{"/{id}":{"get":{"operationId":"read","responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/User"}}}}}}}},"components":{"schemas":{"User":{"type":"object"}}}}`
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/openapi.json":
			_, _ = io.WriteString(w, doc)
		case "/health":
		default:
			w.WriteHeader(404)
		}
	})
	checkMerged(t, up)
}

// checkMerged reads the merged documents and the health of several services.
func checkMerged(t *testing.T, up string) {
	t.Helper()
	gone := httptest.NewServer(nil)
	gone.Close()
	gw, url := start(t, gateway.Config{Auth: auth, PublicDocuments: true, Routes: []gateway.Route{
		{Prefix: "/users", Upstreams: []string{up}}, {Prefix: "/others", Upstreams: []string{up, gone.URL}},
		{Prefix: "/gone", Upstreams: []string{gone.URL}}}})
	a := do(t, "GET", url+"/openapi.json", "")
	for _, want := range []string{`"/users/{id}"`, `"/others/{id}"`, `"#/components/schemas/users_User"`,
		`"others_User":{"type":"object"}`, `"users_read"`} {
		if !strings.Contains(a.text, want) {
			t.Errorf("no %s in %s", want, a.text)
		}
	}
	a = do(t, "GET", url+"/health/services", "")
	for _, want := range []string{`"users":{"status":"up","status_code":200`, `"others":{"status":"degraded"`,
		`"gone":{"status":"down","latency_ms"`} {
		if !strings.Contains(a.text, want) {
			t.Errorf("no %s in %s", want, a.text)
		}
	}
	if strings.Contains(a.text, "refused") {
		t.Errorf("the network's words: %s", a.text)
	}
	if a := do(t, "GET", url+"/health", ""); a.StatusCode != 200 || !strings.Contains(a.text, `"ok"`) {
		t.Errorf("health: %d %s", a.StatusCode, a.text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- gw.Run(ctx) }()
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}
