package gateway_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/observability"
)

// A bomb is passed on as it came: not unpacked, not kept.
func TestGzipBombAtConstantMemory(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for zeros := make([]byte, 1<<20); bomb.Len() < 48<<10; { // of some 48 MiB
		_, _ = z.Write(zeros)
		_ = z.Flush()
	}
	_ = z.Close()
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := client.Get(url + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	runtime.ReadMemStats(&after)
	if n != int64(bomb.Len()) || err != nil || res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%d bytes of %d, %v", n, bomb.Len(), err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Fatalf("%d bytes of memory for a bomb of %d", used, bomb.Len())
	}
}

// The address of an instance comes from the configuration, whatever the client writes.
func TestClientsNameNoUpstream(t *testing.T) {
	var asked atomic.Int32
	other := upstream(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	host := strings.TrimPrefix(other, "http://")
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	for _, request := range []string{
		"GET " + other + "/a/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"GET /a//" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"GET /a/@" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nX-Forwarded-Host: " + host + "\r\nConnection: close\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
	} {
		raw(t, url, request)
	}
	if asked.Load() != 0 {
		t.Fatalf("another host was asked %d times", asked.Load())
	}
}

func TestConnectOverHTTP2(t *testing.T) {
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/", Upstreams: []string{echoing(t)}}}})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodConnect, url, http.NoBody)
	req.Host = "internal:443"
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 405 || res.ProtoMajor != 2 {
		t.Fatalf("%s %s", res.Proto, res.Status)
	}
}

// What concerns one connection passes in neither direction, nor in 1xx.
func TestHopByHopHeaders(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "X-Hop", "X-Correlation-Id"} {
			if v := r.Header.Values(name); len(v) > 0 && name != "X-Correlation-Id" {
				w.Header().Add("Arrived", name+"="+v[0])
			}
		}
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	check := func(what string, h http.Header) {
		for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate", "Arrived"} {
			if v := h.Values(name); len(v) > 0 {
				t.Errorf("%s: %s: %v", what, name, v)
			}
		}
	}
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		hints++
		check("103", http.Header(h))
		return nil
	}})
	req, _ := http.NewRequestWithContext(ctx, "GET", url+"/a", nil)
	for k, v := range map[string]string{"Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "5", "Proxy-Connection": "keep-alive", "Te": "gzip"} {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if check("200", res.Header); hints != 1 {
		t.Errorf("%d hints", hints)
	}
}

// A megabyte that no instance has seen goes elsewhere, whole; one that an instance has read is never sent again.
func TestBodiesAreProcessedOnce(t *testing.T) {
	body := make([]byte, 1<<20)
	_, _ = rand.Read(body)
	want := fmt.Sprintf("%x", sha256.Sum256(body))
	gone := httptest.NewServer(nil)
	gone.Close()
	var processed atomic.Int32
	hashing := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		processed.Add(1)
		fmt.Fprintf(w, "%x", h.Sum(nil))
	})
	dropping := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		processed.Add(1)
		panic(http.ErrAbortHandler)
	})
	off := breaker.Config{Failures: -1}
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/dial", Upstreams: []string{gone.URL, hashing}, RoundRobin: true, RetryBudget: -1, Breaker: off},
		{Prefix: "/drop", Upstreams: []string{dropping, dropping + "/"}, RetryBudget: -1, Attempts: 5, Breaker: off},
	}})
	for range 4 { // with a length and without
		for _, b := range []io.Reader{bytes.NewReader(body), io.MultiReader(bytes.NewReader(body))} {
			res, err := http.Post(url+"/dial", "application/octet-stream", b)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(res.Body)
			if res.Body.Close(); string(text) != want {
				t.Fatalf("%d: %s arrived as %s", res.StatusCode, want, text)
			}
		}
	}
	for n, method := range []string{"POST", "PUT"} { // a PUT may be sent twice, but its body is not kept
		processed.Store(0)
		req, _ := http.NewRequestWithContext(t.Context(), method, url+"/drop", bytes.NewReader(body))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != 502 || processed.Load() != 1 {
			t.Fatalf("%d %s: %d, processed %d times", n, method, res.StatusCode, processed.Load())
		}
	}
}

func TestSlowHeaders(t *testing.T) {
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}}))
	defer gw.CloseIdleConnections()
	door := gateway.Server("", gw)
	if door.ReadHeaderTimeout <= 0 || door.ReadHeaderTimeout > 30*time.Second || door.MaxHeaderBytes > 1<<20 || door.IdleTimeout <= 0 {
		t.Fatalf("the limits: %v %d %v", door.ReadHeaderTimeout, door.MaxHeaderBytes, door.IdleTimeout)
	}
	door.ReadHeaderTimeout = 150 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = door.Serve(l) }()
	defer door.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun := time.Now()
	go func() {
		for _, b := range []byte("GET /a HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_ = c.SetReadDeadline(begun.Add(5 * time.Second))
	if _, err := io.ReadAll(c); os.IsTimeout(err) || time.Since(begun) < 100*time.Millisecond {
		t.Fatalf("a slow header: %v after %v", err, time.Since(begun))
	}
}

// Half open, as many requests reach the service as the breaker has probes.
func TestHalfOpenAdmitsProbes(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	var arrived atomic.Int32
	release := make(chan struct{})
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			w.WriteHeader(500)
			return
		}
		arrived.Add(1)
		<-release
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up},
		Breaker: breaker.Config{Failures: 1, OpenFor: 50 * time.Millisecond, Probes: 3}}}})
	do(t, "GET", url+"/a", "")
	if a := do(t, "GET", url+"/a", ""); a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" {
		t.Fatalf("open: %d %v", a.StatusCode, a.Header)
	}
	bad.Store(false)
	time.Sleep(70 * time.Millisecond)
	var g errgroup.Group
	var refused atomic.Int32
	for range 10 {
		g.Go(func() error {
			res, err := http.Get(url + "/a")
			if err != nil {
				return err
			}
			if res.Body.Close(); res.StatusCode == 503 && refused.Add(1) == 7 {
				close(release)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if arrived.Load() != 3 || refused.Load() != 7 {
		t.Fatalf("%d arrived, %d were refused", arrived.Load(), refused.Load())
	}
}

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
		{{Prefix: "/x", Upstreams: []string{a}}, {Prefix: "/y", Upstreams: []string{b}, MaxBody: 100}, {Prefix: "/x/z", Upstreams: []string{c}}},
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
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > baseline+2; time.Sleep(10 * time.Millisecond) {
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
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "t.Service", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{desc}}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/t.Service", KeepPrefix: true, MaxBody: -1, Timeout: 50 * time.Millisecond,
		Upstreams: []string{"h2c://" + l.Addr().String()}}}})
	conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(pass{})))
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
	case <-time.After(5 * time.Second):
		t.Fatal("the service goes on")
	}
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
	tel := observability.Must(t.Context(), observability.Config{Service: "edge", LogWriter: io.Discard})
	gw := gateway.Must(gateway.New(gateway.Config{Auth: auth, CORS: &gateway.CORS{Origins: []string{"https://shop.example"}}, Logger: tel.Logger,
		TracerProvider: tel.TracerProvider, MeterProvider: tel.MeterProvider,
		Routes: []gateway.Route{{Prefix: "/ws", Upstreams: []string{up}, Upgrade: true, Roles: []string{"customer"}, RateLimit: &gateway.RateLimit{Rate: 100, BySubject: true},
			Timeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond, MaxBody: 10}}}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := gateway.Server("", tel.Middleware(gw))
	go func() { _ = door.Serve(l) }()
	t.Cleanup(func() { _ = door.Close(); gw.CloseIdleConnections() })
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

// Looks go out at once, and are remembered.
func TestServicesAreLookedAtTogetherAndRemembered(t *testing.T) {
	var looks atomic.Int32
	slow := func(w http.ResponseWriter, r *http.Request) { looks.Add(1); time.Sleep(200 * time.Millisecond) }
	var routes []gateway.Route
	for n := range 6 {
		routes = append(routes, gateway.Route{Prefix: fmt.Sprintf("/s%d", n), Upstreams: []string{upstream(t, slow)}})
	}
	gw, url := start(t, gateway.Config{Routes: routes})
	begun := time.Now()
	var g sync.WaitGroup
	for range 10 {
		g.Go(func() { do(t, "GET", url+"/health/services", "") })
	}
	g.Wait()
	if took := time.Since(begun); took > 800*time.Millisecond || looks.Load() != 6 {
		t.Fatalf("ten questions took %v and %d looks at six services", took, looks.Load())
	}
	all, err := gw.Services(t.Context())
	if err != nil || len(all) != 6 || all["s3"].LatencyMS < 200 || all["s3"].StatusCode != 200 || all["s3"].Status != "up" {
		t.Fatalf("%v %v", all, err)
	}
}
