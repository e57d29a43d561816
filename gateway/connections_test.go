package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

// Requests that are given up end their stream, not the HTTP/2 connection of all others.
func TestAbortedStreamsKeepTheConnection(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/", Upstreams: []string{up}, MaxBody: 10}}})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	var opened atomic.Int32
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if !c.Reused {
			opened.Add(1)
		}
	}}
	for n := range 20 {
		ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(t.Context(), trace), 30*time.Millisecond)
		path, body := "/hang", ""
		if n%2 == 0 {
			path, body = "/large", strings.Repeat("a", 100)
		}
		req, err := http.NewRequestWithContext(ctx, "POST", url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if res, err := tr.RoundTrip(req); err == nil {
			_ = res.Body.Close()
		}
		cancel()
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("20 requests that were given up or refused needed %d connections, want 1", n)
	}
}

// A client that does not read is not waited for without end, and neither is one that outlasts TotalTimeout.
func TestClientsThatDoNotRead(t *testing.T) {
	ended := make(chan struct{}, 2)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		block := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/write", Upstreams: []string{up}, WriteTimeout: 100 * time.Millisecond},
		{Prefix: "/total", Upstreams: []string{up}, TotalTimeout: 200 * time.Millisecond},
	}})
	for _, path := range []string{"/write", "/total"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: the exchange goes on for a client that does not read", path)
		}
	}
	// The deadline of one answer is none of the next on its connection.
	fast := upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	_, url = start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{fast},
		WriteTimeout: 50 * time.Millisecond}}})
	for range 2 {
		if a := do(t, "GET", url+"/a", ""); a.text != "ok" {
			t.Errorf("got %s %q", a.Status, a.text)
		}
		time.Sleep(80 * time.Millisecond)
	}
}

// What follows a refused CONNECT is not taken for a tunnel: the guard stays on.
func TestGuardStaysOnAfterConnect(t *testing.T) {
	var arrived atomic.Int32
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/",
		Upstreams: []string{upstream(t, func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/smuggled" {
				arrived.Add(1)
			}
		})}}}})
	text := raw(t, url, "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\nGET /ok HTTP/1.1\r\nHost: x\r\n\r\n"+
		"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled "+
		"HTTP/1.1\r\nHost: x\r\n\r\n")
	if !strings.HasPrefix(text, "HTTP/1.1 405 ") || arrived.Load() != 0 || strings.Count(text, "HTTP/1.1 200") > 0 {
		t.Errorf("%d smuggled, answers: %s", arrived.Load(), text)
	}
}
