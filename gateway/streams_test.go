package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/observability"
)

// A stream of events goes on over its route's timeout and two reloads, the second of which has no such route.
func TestEventsAcrossReloads(t *testing.T) {
	next := make(chan int)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range next {
			fmt.Fprintf(w, "data: %d\n\n", n)
			_ = http.NewResponseController(w).Flush()
		}
	})
	route := gateway.Route{Prefix: "/a", Upstreams: []string{up}, Timeout: 30 * time.Millisecond}
	gw, url := start(t, gateway.Config{Routes: []gateway.Route{route}})
	go func() { next <- 0 }()
	res, err := http.Get(url + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	read := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want || !lines.Scan() {
			t.Fatalf("%q, want %q: %v", lines.Text(), want, lines.Err())
		}
	}
	read("data: 0")
	route.Timeout = time.Second
	for n, routes := range [][]gateway.Route{{route}, {{Prefix: "/b", Upstreams: []string{echoing(t)}}}} {
		if err := gw.Reload(routes); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		next <- n + 1
		read(fmt.Sprintf("data: %d", n+1))
	}
	close(next)
	if lines.Scan() || lines.Err() != nil {
		t.Fatalf("the end: %q %v", lines.Text(), lines.Err())
	}
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 404 {
		t.Fatalf("the route that is gone: %d", a.StatusCode)
	}
}

// Sixty-four clients, two hundred reloads: no request fails or goes astray, and afterwards nothing is left.
func TestReloadsUnderLoad(t *testing.T) {
	serve := func(name string) string {
		return upstream(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, name, r.URL.Path)
		})
	}
	a, b, c := serve("a"), serve("b"), serve("c")
	sets := [][]gateway.Route{
		{{Prefix: "/x", Upstreams: []string{a, c + "/c"}}, {Prefix: "/y", Upstreams: []string{b}}},
		{{Prefix: "/x", Upstreams: []string{a}}, {Prefix: "/y", Upstreams: []string{b}, MaxBody: 100},
			{Prefix: "/x/z", Upstreams: []string{c}}},
	}
	gw, url := start(t, gateway.Config{Routes: sets[1]})
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	do(t, "GET", url+"/x/1", "")
	http.DefaultClient.CloseIdleConnections()
	gw.CloseIdleConnections()
	time.Sleep(50 * time.Millisecond)
	baseline := runtime.NumGoroutine()
	ctx, stop := context.WithCancel(t.Context())
	var g sync.WaitGroup
	var count atomic.Int32
	for n := range 64 {
		path, want := "/x/1", "a/1 c/c/1"
		if n%2 == 1 {
			path, want = "/y/1", "b/1"
		}
		g.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(t.Context(), "POST", url+path, strings.NewReader("body"))
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				text, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if count.Add(1); res.StatusCode != 200 || !strings.Contains(want, string(text)) {
					t.Errorf("%s: %d %s", path, res.StatusCode, text)
					return
				}
			}
		})
	}
	for n := range 200 {
		if err := gw.Reload(sets[n%2]); err != nil {
			t.Error(err)
		}
		if n%10 == 0 && gw.Reload([]gateway.Route{{Prefix: "/x"}}) == nil {
			t.Error("an invalid configuration was taken")
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	g.Wait()
	tr.CloseIdleConnections()
	gw.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > baseline+
		2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), baseline)
		}
	}
	if count.Load() < 200 {
		t.Fatalf("only %d requests", count.Load())
	}
}

// pass takes messages as they are.
type pass struct{}

func (pass) Name() string                  { return "pass" }
func (pass) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (pass) Unmarshal(p []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(p)
	return nil
}

var bidi = &grpc.StreamDesc{StreamName: "Talk", ServerStreams: true, ClientStreams: true}

// Both ways at once, with trailers that come long after the last message, and an end that the client makes.
func TestGRPCStreams(t *testing.T) {
	ended := make(chan error, 1)
	srv := grpc.NewServer(grpc.ForceServerCodec(pass{}))
	bidirectional(ended, srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/t.Service", KeepPrefix: true, MaxBody: -1,
		Timeout:   50 * time.Millisecond,
		Upstreams: []string{"h2c://" + l.Addr().String()}}}})
	conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(pass{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	talk := func(ctx context.Context) grpc.ClientStream {
		t.Helper()
		s, err := conn.NewStream(ctx, bidi, "/t.Service/Talk")
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			in := fmt.Appendf(nil, "message %d", n)
			var out []byte
			if err := s.SendMsg(&in); err != nil {
				t.Fatal(err)
			}
			if err := s.RecvMsg(&out); err != nil || !bytes.Equal(in, out) {
				t.Fatalf("%q %v", out, err)
			}
		}
		return s
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s := talk(ctx)
	_ = s.CloseSend()
	var m []byte
	if err := s.RecvMsg(&m); status.Code(err) != codes.ResourceExhausted || len(s.Trailer().Get("late")) != 1 {
		t.Fatalf("%v %v", err, s.Trailer())
	}
	ctx, giveUp := context.WithCancel(ctx)
	talk(ctx)
	giveUp()
	select {
	case err := <-ended:
		if err == nil {
			t.Fatal("the service saw no end")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the service goes on")
	}
}

// bidirectional describes a stream in both directions that echoes what it receives.
func bidirectional(ended chan error, srv *grpc.Server) {
	desc := *bidi
	desc.Handler = func(_ any, s grpc.ServerStream) error {
		for {
			var m []byte
			if err := s.RecvMsg(&m); err == io.EOF {
				time.Sleep(100 * time.Millisecond)
				s.SetTrailer(metadata.Pairs("late", "yes"))
				return status.Error(codes.ResourceExhausted, "enough")
			} else if err != nil {
				ended <- s.Context().Err()
				return err
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	}
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "t.Service", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{desc}}, nil)
}

// WebSocket through everything at once.
func TestWebSocketThroughAllMiddleware(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{"*"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	})
	tel := observability.Must(observability.New(t.Context(), observability.Config{Service: "edge", LogWriter: io.Discard}))
	gw := gateway.Must(gateway.New(gateway.Config{Auth: auth,
		CORS: &gateway.CORS{Origins: []string{"https://shop.example"}}, Logger: tel.Logger,
		TracerProvider: tel.TracerProvider, MeterProvider: tel.MeterProvider,
		Routes: []gateway.Route{{Prefix: "/ws", Upstreams: []string{up}, Upgrade: true, Roles: []string{"customer"},
			RateLimit: &gateway.RateLimit{Rate: 100, BySubject: true},
			Timeout:   50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond, MaxBody: 10}}}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := gateway.NewServer("", tel.Middleware(gw))
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); gw.CloseIdleConnections() })
	c, _, err := websocket.Dial(t.Context(), "http://"+l.Addr().String()+"/ws", &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer ana"}, "Origin": {"https://shop.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, size := range []int{1, 1000, 30000} {
		text := strings.Repeat("x", size)
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, back, err := c.Read(t.Context()); string(back) != text || err != nil {
			t.Fatalf("%d: %v", size, err)
		}
		time.Sleep(70 * time.Millisecond)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
}
