package gateway_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

func TestGzipPassesAsItIs(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("text"))
	z.Close()
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed.Bytes())
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	a := do(t, "GET", url+"/a", "", "Accept-Encoding", "gzip")
	if a.text != packed.String() || a.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%q %v", a.text, a.Header)
	}
}

func TestBodiesStreamBothWaysAndAreNotKept(t *testing.T) {
	const size = 24 << 20
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	}))
	defer s.Close()
	_, url := start(t, gateway.Config{UpstreamTLS: s.Client().Transport.(*http.Transport).TLSClientConfig,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{s.URL}, MaxBody: -1}}})
	runtime.GC()
	before, most := heap(), uint64(0)
	sent := 0
	body := readerFunc(func(p []byte) (int, error) {
		if sent >= size {
			return 0, io.EOF
		}
		n := min(len(p), size-sent)
		if sent += n; sent%(1<<20) < n {
			most = max(most, heap())
		}
		return n, nil
	})
	res, err := http.Post(url+"/a", "application/octet-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil || most > before+size/2 {
		t.Fatalf("%d bytes of %d came back (%v), the heap went from %d to %d", n, size, err, before, most)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestBodiesTooLarge(t *testing.T) {
	var whole atomic.Int32
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(1)
		}
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, MaxBody: 10,
		Breaker: breaker.Config{Failures: 1}}}})
	for _, body := range []io.Reader{strings.NewReader("12345678901"), io.MultiReader(strings.NewReader("12345678901"))} {
		res, err := http.Post(url+"/a", "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 413 {
			t.Errorf("%T: %d", body, res.StatusCode)
		}
	}
	if a := do(t, "POST", url+"/a", "1234567890"); a.StatusCode != 200 || whole.Load() != 1 {
		t.Errorf("at the limit, after bodies over it: %d, %d arrived whole", a.StatusCode, whole.Load())
	}
}

func TestClientThatStallsIsNoFailureOfTheService(t *testing.T) {
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up},
		Timeout: 50 * time.Millisecond, Breaker: breaker.Config{Failures: 1}},
		{Prefix: "/total", Upstreams: []string{up}, TotalTimeout: 50 * time.Millisecond}}})
	if text := raw(t, url, "POST /total HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx"); !strings.HasPrefix(text,
		"HTTP/1.1 408") {
		t.Errorf("total: %q", text)
	}
	begun := time.Now()
	text := raw(t, url, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
	if !strings.HasPrefix(text, "HTTP/1.1 408") || time.Since(begun) > 3*time.Second {
		t.Fatalf("%q after %v", text, time.Since(begun))
	}
	if a := do(t, "POST", url+"/a", "x"); a.StatusCode != 200 {
		t.Fatalf("after it: %d", a.StatusCode)
	}
}

// An answer that begins before the body was read ends its connection, else net/http panics at the next request there.
// One that begins after it does not.
func TestAnswersBeforeTheEndOfTheBody(t *testing.T) {
	read := upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	early := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_ = c.Close()
		}
	})
	gw := gateway.Must(gateway.New(gateway.Config{Anonymous: true, Logger: slog.New(slog.DiscardHandler),
		Routes: []gateway.Route{
			{Prefix: "/read", Upstreams: []string{read}}, {Prefix: "/early", Upstreams: []string{early}},
		}}))
	defer gw.CloseIdleConnections()
	var log logs
	srv := gateway.NewServer("", gw)
	srv.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(&log, nil), slog.LevelError)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	checkEarlyAnswers(t, l)
	if strings.Contains(log.String(), "panic") {
		t.Error(log.String())
	}
}

// checkEarlyAnswers asks for an answer that comes before the end of the request's body.
func checkEarlyAnswers(t *testing.T, l net.Listener) {
	t.Helper()
	for path, closes := range map[string]bool{"/read": false, "/early": true} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		head := "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
		r := bufio.NewReader(c)
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		if !closes {
			_, _ = io.WriteString(c, "hello")
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 200 || res.Close != closes {
			t.Fatalf("%s: got %+v %v, want 200 and closing %v", path, res, err, closes)
		}
		_ = res.Body.Close()
		if closes {
			_, _ = io.WriteString(c, "hello"+head+"hello")
			if rest, err := io.ReadAll(r); len(rest) > 0 {
				t.Errorf("%s: %q after the end, %v", path, rest, err)
			}
		}
		_ = c.Close()
	}
}
