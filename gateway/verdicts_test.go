package gateway_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

// rawInstance serves connections by hand.
func rawInstance(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// http2Instance answers every request over HTTP/2 without TLS by hand, and counts its connections.
func http2Instance(t *testing.T, answer func(f *http2.Framer, stream uint32)) (upstream string, conns *atomic.Int32) {
	t.Helper()
	conns = new(atomic.Int32)
	return "h2c://" + rawInstance(t, func(c net.Conn) {
		defer c.Close()
		conns.Add(1)
		f := http2.NewFramer(c, c)
		_, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		for err = errors.Join(err, f.WriteSettings()); err == nil; {
			var frame http2.Frame
			if frame, err = f.ReadFrame(); err != nil {
				break
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					err = f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				answer(f, frame.StreamID)
			}
		}
	}), conns
}

// secureInstance serves HTTP/2 over TLS.
func secureInstance(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func trusting(s *httptest.Server) *tls.Config {
	return &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
}

// A client that stops sending its body until TotalTimeout is over says nothing about the instance.
func TestBodiesThatStallUntilTotalTimeoutCountAsNoFailure(t *testing.T) {
	read := func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	secure := secureInstance(t, read)
	for name, up := range map[string]string{"HTTP/1": upstream(t, read), "HTTP/2": secure.URL} {
		t.Run(name, func(t *testing.T) {
			var v verdicts
			_, url := start(t, gateway.Config{UpstreamTLS: trusting(secure), Routes: []gateway.Route{{
				Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1, TotalTimeout: 50 * time.Millisecond,
				Breaker: breaker.Config{Failures: 2, OnCall: v.called},
			}}})
			for range 20 {
				c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				_, _ = io.WriteString(c, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na")
				line, err := bufio.NewReader(c).ReadString('\n')
				if !strings.HasPrefix(line, "HTTP/1.1 408") {
					t.Errorf("the client got %q %v, want 408", line, err)
				}
				_ = c.Close()
			}
			if n := v.failures.Load(); n > 0 {
				t.Errorf("the breaker counted %d failures", n)
			}
		})
	}
}

// A service that refuses a body before it has read it, and closes the connection, has answered.
func TestRefusedBodiesCountAsNoFailure(t *testing.T) {
	refusing := rawInstance(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
		_ = c.Close() // a RST, since there is more to read
	})
	var v verdicts
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{
		Prefix: "/a", Upstreams: []string{"http://" + refusing}, MaxEjection: 1,
		Breaker: breaker.Config{Failures: 2, OnCall: v.called},
	}}})
	for range 100 {
		res, err := http.Post(url+"/a", "", strings.NewReader(strings.Repeat("a", 4<<20)))
		if err != nil { // the gateway closes the connection too
			continue
		}
		if res.StatusCode == http.StatusServiceUnavailable {
			t.Error("a breaker is open")
		}
		_ = res.Body.Close()
	}
	if n := v.failures.Load(); n > 0 {
		t.Errorf("the breaker counted %d failures", n)
	}
}

// Servers of HTTP/2 that are strict reset what they take for malformed, such as <> in a query. net/http repeats such
// requests on ever new connections, without a pause.
func TestRequestsThatInstancesResetCountAsNoFailure(t *testing.T) {
	up, conns := http2Instance(t, func(f *http2.Framer, stream uint32) {
		_ = f.WriteRSTStream(stream, http2.ErrCodeProtocol)
	})
	var v verdicts
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{
		Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1, Attempts: 1, Timeout: 5 * time.Second,
		Breaker: breaker.Config{Failures: 2, OnCall: v.called},
	}}})
	for range 5 {
		if a := do(t, "GET", url+"/a?%3C>", ""); a.StatusCode != 400 {
			t.Errorf("the client got %s, want 400", a.Status)
		}
		if a := do(t, "POST", url+"/a", "a"); a.StatusCode != 400 {
			t.Errorf("with a body the client got %s, want 400", a.Status)
		}
	}
	if n := v.failures.Load(); n > 0 {
		t.Errorf("the breaker counted %d failures", n)
	}
	if n := conns.Load(); n > 30 {
		t.Errorf("ten requests made %d connections, want three each at most", n)
	}
}

// What a service does not implement was asked by the client: Apache and Python's servers answer unknown methods so.
func TestWhatIsNotImplementedCountsAsNoFailure(t *testing.T) {
	for _, status := range []int{501, 505} {
		var v verdicts
		up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxEjection: 1,
			Breaker: breaker.Config{OnCall: v.called}}}})
		for range 10 {
			if a := do(t, "BREW", url+"/a", ""); a.StatusCode != status {
				t.Errorf("got %s, want %d", a.Status, status)
			}
		}
		if n := v.failures.Load(); n > 0 {
			t.Errorf("%d: the breaker counted %d failures", status, n)
		}
	}
}

// An instance that switches to a protocol that the client did not ask for gets its connection closed.
func TestSwitchesThatWereNotAskedForHoldNothing(t *testing.T) {
	closed := make(chan struct{})
	var once atomic.Bool
	switching := rawInstance(t, func(c net.Conn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			if once.CompareAndSwap(false, true) {
				close(closed)
			}
		}
	})
	gw, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{"http://" + switching},
		Upgrade: true}}})
	for _, upgrade := range []string{"", "Connection: Upgrade\r\nUpgrade: websocket\r\n"} {
		got := sendHTTP1(t, url, malformed{http1: "GET /a HTTP/1.1\r\nHost: x\r\n" + upgrade + "\r\n"})
		if got != "502" {
			t.Errorf("the client got %s, want 502", got)
		}
	}
	select {
	case <-closed:
	case <-time.After(2 * time.Second):
		t.Error("the connection to the instance stays open")
	}
	if _, busy := gw.OnlyInstance(); busy != 0 {
		t.Errorf("%d requests are still counted as in progress", busy)
	}
}

// An instance that ends connections in their handshake, as behind a balancer while it restarts, has got no request.
func TestHandshakesThatFailAreTriedElsewhere(t *testing.T) {
	secure := secureInstance(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	broken := rawInstance(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
	})
	_, url := start(t, gateway.Config{UpstreamTLS: trusting(secure), Routes: []gateway.Route{{
		Prefix: "/a", Upstreams: []string{"https://" + broken, secure.URL}, Balance: gateway.RoundRobin,
	}}})
	for range 6 {
		if a := do(t, "POST", url+"/a", "a"); a.StatusCode != 200 {
			t.Errorf("the client got %s", a.Status)
		}
	}
}
