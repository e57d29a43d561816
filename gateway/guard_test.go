package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sillar-go/sillar/gateway"
)

const (
	asked     = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
	ambiguous = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)

// statuses are those of the answers in text.
func statuses(text string) string {
	var all []string
	for line := range strings.SplitSeq(text, "\n") {
		if _, rest, ok := strings.Cut(line, "HTTP/1.1 "); ok {
			all = append(all, rest[:3])
		}
	}
	return strings.Join(all, " ")
}

// seen counts what a service was asked.
type seen struct {
	mu    sync.Mutex
	paths []string
}

func (s *seen) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.paths = append(s.paths, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	if r.URL.Path != "/early" {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

func (s *seen) String() string { s.mu.Lock(); defer s.mu.Unlock(); return strings.Join(s.paths, " ") }

func TestAmbiguousRequestsAreRefused(t *testing.T) {
	var got seen
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a",
		Upstreams: []string{upstream(t, got.ServeHTTP)}}}})
	for request, want := range map[string]string{
		ambiguous:                 "400",
		asked + ambiguous + asked: "200 400",
		// An upgrade that is refused is no way past.
		"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + ambiguous + asked: "400 400",
		"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + ambiguous + asked:                                     "405 400",
		// A client that waits for 100 Continue.
		"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx" + ambiguous: "100 200 400",
		// What follows a malformed body is no request, whether the service has read it or not.
		"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nno\r\n\r\n" + asked: "400",
		"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;\n\r\n" + asked:             "400",
		"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n" + asked:          "400",
		"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n folded\r\n\r\n" + asked: "400",
	} {
		if text := raw(t, url, request); statuses(text) != want {
			t.Errorf("%q: %s, want %s\n%s", request, statuses(text), want, text)
		}
	}
}

// net/http reads on after a body it does not understand when a handler streams both ways, and would take the rest for a
// request.
func TestWhatFollowsAMalformedBodyIsNoRequest(t *testing.T) {
	var got seen
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a",
		Upstreams: []string{upstream(t, got.ServeHTTP)}}}})
	smuggled := strings.ReplaceAll(asked, "/a", "/a/smuggled")
	raw(t, url, "POST /a/early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n"+smuggled)
	raw(t, url, "POST /a/early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: "+
		strings.Repeat("t", 5000)+"\r\n\r\n"+smuggled)
	if strings.Contains(got.String(), "smuggled") {
		t.Fatalf("the service was asked: %s", got.String())
	}
}

func TestUpgradesPassUnseen(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
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
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/ws", Upstreams: []string{up}, Upgrade: true}}})
	c, _, err := websocket.Dial(t.Context(), url+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	// It is masked with bytes drawn at random, so it takes some until one is like the beginning of a folded line.
	text := strings.Repeat("\n folded\n\ttoo\nContent-Length: 1\nTransfer-Encoding: chunked\n", 50)
	for range 30 {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, back, err := c.Read(t.Context()); string(back) != text || err != nil {
			t.Fatalf("%v, changed: %v", err, string(back) != text)
		}
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
}

// startTLS serves a gateway with a certificate of httptest's.
func startTLS(t *testing.T, cfg gateway.Config) (addr string, client *tls.Config, srv *gateway.Server) {
	t.Helper()
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	t.Cleanup(cert.Close)
	cfg.Anonymous, cfg.Logger = true, slog.New(slog.DiscardHandler)
	gw := gateway.Must(gateway.New(cfg))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv = gateway.NewServer("", gw)
	srv.TLSConfig = &tls.Config{Certificates: cert.TLS.Certificates, MinVersion: tls.VersionTLS12}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = srv.Close(); gw.CloseIdleConnections() })
	pool := cert.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return l.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS12}, srv
}

func TestGuardOverTLS(t *testing.T) {
	addr, trust, _ := startTLS(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	dial := func(protos ...string) net.Conn {
		t.Helper()
		own := trust.Clone()
		own.NextProtos = protos
		c, err := tls.Dial("tcp", addr, own)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		return c
	}
	for _, protos := range [][]string{nil, {"http/1.1"}} {
		c := dial(protos...)
		_, _ = io.WriteString(c, asked+ambiguous+asked)
		text, _ := io.ReadAll(c)
		if statuses(string(text)) != "200 400" || !strings.Contains(string(text), `"X-Forwarded-Proto":["https"]`) {
			t.Errorf("%v: %s", protos, text)
		}
	}
	for name, want := range map[string]int{"h2": 2, "http/1.1": 1} {
		own := trust.Clone()
		own.NextProtos = []string{name}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: own, ForceAttemptHTTP2: want == 2}}
		res, err := client.Get("https://" + addr + "/a")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		client.CloseIdleConnections()
		if res.ProtoMajor != want || !strings.Contains(string(text), `"X-Forwarded-Proto":["https"]`) {
			t.Errorf("%s: %s %s", name, res.Proto, text)
		}
	}
	if text := raw(t, "http://"+addr, asked); !strings.HasPrefix(text, "HTTP/1.0 400") {
		t.Errorf("without TLS: %q", text)
	}
}

// Handshakes that never end neither hold up others nor outlive the server.
func TestHandshakesThatHang(t *testing.T) {
	addr, trust, srv := startTLS(t, gateway.Config{})
	var hung [20]net.Conn
	for n := range hung {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		hung[n] = c
	}
	c, err := tls.Dial("tcp", addr, trust)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, asked)
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 404") {
		t.Fatalf("%q %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c.Close()
	if err := srv.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range hung {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a handshake goes on")
		}
	}
}

func TestGuardOfAnotherServer(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, ok := w.(http.Hijacker)
			if r.URL.Path == "/hijack" && ok { // a tunnel that is not announced
				conn, rw, err := c.Hijack()
				if err == nil {
					defer conn.Close()
					fmt.Fprint(rw, "HTTP/1.1 200 OK\r\n\r\n")
					_ = rw.Flush()
					_, _ = io.Copy(conn, rw)
				}
			}
		})}
	l := gateway.Guard(inner)
	ended := make(chan error)
	go func() { ended <- srv.Serve(l) }()
	url := "http://" + inner.Addr().String()
	if got := statuses(raw(t, url, asked+ambiguous)); got != "200 400" {
		t.Errorf("%s", got)
	}
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	r := bufio.NewReader(c)
	fmt.Fprint(c, "CONNECT /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
	for range 2 {
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	tunnelled := strings.Repeat("\n folded\nContent-Length: 1\nTransfer-Encoding: x\n", 3)
	fmt.Fprint(c, tunnelled)
	back := make([]byte, len(tunnelled))
	if _, err := io.ReadFull(r, back); string(back) != tunnelled {
		t.Errorf("%q %v", back, err)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A client that has closed one direction waits all the same, and must not take silence for success.
func TestClientThatClosesOneDirection(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(c, asked)
	_ = c.(*net.TCPConn).CloseWrite()
	text, _ := io.ReadAll(c)
	if statuses(string(text)) != "499" {
		t.Fatalf("%q", text)
	}
}
