package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/gateway"
)

// Connections that net/http ends with an answer linger for half a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// tokens maps a token to a subject and its roles.
type tokens map[string][]string

type challenged struct{ error }

func (challenged) Challenge() string { return `Bearer error="expired"` }

func (t tokens) Authenticate(_ context.Context, bearer string) (string, []string, map[string]any, error) {
	roles, ok := t[bearer]
	if !ok {
		return "", nil, nil, challenged{errors.New("no such token")}
	}
	return "subject-of-" + bearer, roles, map[string]any{"email": bearer + "@example.com"}, nil
}

var auth = tokens{"ana": {"customer"}, "root": {"admin", "customer"}}

// logs keeps what the gateway logs.
type logs struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logs) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.buf.Write(p) }

func (l *logs) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.buf.String() }

// start serves a gateway over a real connection.
func start(t *testing.T, cfg gateway.Config) (*gateway.Gateway, string) {
	t.Helper()
	if cfg.Auth == nil {
		cfg.Anonymous = true
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	gw, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := gateway.NewServer("", gw)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { http.DefaultClient.CloseIdleConnections(); gw.CloseIdleConnections(); _ = srv.Close() })
	return gw, "http://" + l.Addr().String()
}

func upstream(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

type echo struct {
	Method, URI     string
	Header, Trailer http.Header
	Body            string
}

func echoing(t *testing.T) string {
	return upstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(echo{r.Method, r.RequestURI, r.Header, r.Trailer, string(body)})
	})
}

type answer struct {
	*http.Response
	text string
}

func do(t *testing.T, method, url, body string, header ...string) answer {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(text)}
}

// raw sends bytes as they are, for requests that net/http would not send.
func raw(t *testing.T, url, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(c)
	return string(text)
}
