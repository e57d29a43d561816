package gateway

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// syncLog is a log that a test reads while the server writes.
type syncLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns what was logged, and forgets it.
func (l *syncLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

// pipes is a listener in memory, for a bubble of synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Requests that no handler sees are logged, without text of the client, and not one by one.
func TestRefusalsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &syncLog{}
		srv := NewServer("", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			http.Error(w, "the handler's own", http.StatusBadRequest)
		}))
		srv.ErrorLog = log.New(out, "", 0)
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(l) }()
		ask := func(request string) (status string) {
			client, server := net.Pipe()
			l.conns <- server
			go func() { _, _ = io.WriteString(client, request) }()
			answer, _ := io.ReadAll(client)
			_ = client.Close()
			status, _, _ = strings.Cut(strings.TrimPrefix(string(answer), "HTTP/1.1 "), " ")
			return status
		}
		for name, c := range map[string]struct{ request, status, want string }{
			"a handler's": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "400", ""},
			"ambiguous": {"POST /hush HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400",
				"400 Bad Request: " + framedTwice},
			"folded": {"GET /hush HTTP/1.1\r\nHost: x\r\nA: b\r\n hush\r\n\r\n", "400",
				"400 Bad Request: a folded header line"},
			"no host":    {"GET /hush HTTP/1.1\r\n\r\n", "400", "400 Bad Request: missing required Host header"},
			"no request": {"hush\r\n\r\n", "400", "400 Bad Request\n"},
			"too large": {"GET /hush HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("hush", 40<<10) + "\r\n\r\n", "431",
				"431 Request Header Fields Too Large"},
			"coding": {"POST /hush HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: hush\r\n\r\n", "501", "501 Not Implemented"},
		} {
			if got := ask(c.request); got != c.status {
				t.Errorf("%s: answered %q, want %s", name, got, c.status)
			}
			got := out.take()
			if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Contains(got, "hush") ||
				strings.Count(got, "\n") > 1 {
				t.Errorf("%s: the log says %q, want %q", name, got, c.want)
			}
			time.Sleep(time.Second)
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { ask("x\r\n\r\n") })
		}
		all.Wait()
		time.Sleep(time.Second)
		ask("x\r\n\r\n")
		if got := out.take(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "(and 49 more before it)") {
			t.Errorf("50 at once, and one more: %s", got)
		}
		_ = srv.Close()
		<-ended
	})
}
