package breakerhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
	"github.com/sillar-go/sillar/internal/correlation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var twice = breaker.Config{Retry: breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(time.Millisecond,
	time.Millisecond)}}

func serve(t *testing.T, cfg breakerhttp.Config, h http.HandlerFunc) (*breakerhttp.Transport, string) {
	t.Helper()
	srv := httptest.NewServer(h)
	tr := breakerhttp.Must(breakerhttp.NewTransport(nil, cfg))
	t.Cleanup(func() { tr.CloseIdleConnections(); srv.Close() })
	return tr, srv.URL
}

// body says whether it was closed.
type body struct {
	io.Reader
	closed atomic.Bool
}

func (b *body) Close() error { b.closed.Store(true); return nil }

func TestRetriesReplayTheBodyOnOneConnection(t *testing.T) {
	var bodies []string
	var fresh atomic.Int32
	tr, url := serve(t, breakerhttp.Config{Breaker: twice}, func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(got))
		if len(bodies) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write(bytes.Repeat([]byte("x"), 100<<10))
			return
		}
		_, _ = io.WriteString(w, "done")
	})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			fresh.Add(1)
		}
	}})
	req, _ := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader("payload"))
	req.Header = nil // a RoundTripper gets such requests too
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	if string(text) != "done" || err != nil || strings.Join(bodies, " ") != "payload payload payload" {
		t.Fatalf("%q %v, bodies %q", text, err, bodies)
	}
	if fresh.Load() != 1 {
		t.Fatalf("%d connections, want one: discarded bodies must be drained", fresh.Load())
	}
	if req.Header != nil {
		t.Fatalf("the request was changed: %v", req.Header)
	}
}

var retriedRequests = map[string]struct {
	method, key string
	body        io.Reader
	status      int
	attempts    int32
}{
	"GET":                         {"GET", "", nil, 503, 3},
	"DELETE":                      {"DELETE", "", nil, 502, 3},
	"too many":                    {"GET", "", nil, 429, 3},
	"POST":                        {"POST", "", strings.NewReader("x"), 503, 1},
	"POST with a key":             {"POST", "k-1", strings.NewReader("x"), 503, 3},
	"PUT that cannot be replayed": {"PUT", "", &body{Reader: strings.NewReader("x")}, 503, 1},
	"not found":                   {"GET", "", nil, 404, 1},
	"not implemented":             {"GET", "", nil, 501, 1},
}

func TestWhatIsRetried(t *testing.T) {
	for name, c := range retriedRequests {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			tr, url := serve(t, breakerhttp.Config{Breaker: twice}, func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, "why")
			})
			req, _ := http.NewRequestWithContext(t.Context(), c.method, url, c.body)
			if c.key != "" {
				req.Header.Set("Idempotency-Key", c.key)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if n.Load() != c.attempts || res.StatusCode != c.status || string(text) != "why" || err != nil {
				t.Fatalf("%d attempts, want %d; %d %q %v", n.Load(), c.attempts, res.StatusCode, text, err)
			}
			counts := tr.Breaker(req.URL.Host).Counts()
			if failed := c.status >= 500 || c.status == 429; failed != (counts.Failures > 0) {
				t.Fatalf("counts %+v", counts)
			}
			if b, ok := c.body.(*body); ok && !b.closed.Load() {
				t.Fatal("the request's body was not closed")
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for name, c := range map[string]struct {
		header   func() string
		limit    time.Duration
		deadline time.Duration
		least    time.Duration
		attempts int32
	}{
		"seconds": {func() string { return "1" }, 0, time.Minute, time.Second, 2},
		"a date": {func() string { return time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat) }, 0,
			time.Minute, 500 * time.Millisecond, 2},
		"capped": {func() string { return "999999999999" }, 50 * time.Millisecond, time.Minute,
			50 * time.Millisecond, 2},
		"a date, capped": {func() string { return time.Now().Add(time.Hour).UTC().Format(http.TimeFormat) },
			50 * time.Millisecond, time.Minute, 50 * time.Millisecond, 2},
		"past the deadline": {func() string { return "20" }, 0, 10 * time.Second, 0, 1},
		"nonsense":          {func() string { return "-5" }, 0, time.Minute, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			tr, url := serve(t, breakerhttp.Config{Breaker: twice, MaxRetryAfter: c.limit},
				func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1) == 1 {
						w.Header().Set("Retry-After", c.header())
						w.WriteHeader(http.StatusServiceUnavailable)
					}
				})
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			start := time.Now()
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if took := time.Since(start); n.Load() != c.attempts || took < c.least || took > c.least+4*time.Second {
				t.Fatalf("%d attempts in %v", n.Load(), took)
			}
		})
	}
}

func TestTimeoutDoesNotCutTheBody(t *testing.T) {
	cfg := breakerhttp.Config{Breaker: breaker.Config{Timeout: 100 * time.Millisecond, Failures: 1}}
	tr, url := serve(t, cfg, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			_, _ = io.Copy(io.Discard, r.Body) // net/http sees the client go only then
			<-r.Context().Done()
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(w, "late")
	})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(res.Body); string(text) != "late" || err != nil {
		t.Fatalf("%q %v", text, err)
	}
	res.Body.Close()

	b := &body{Reader: strings.NewReader("x")}
	req, _ = http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/hang", b)
	if _, err = tr.RoundTrip(req); !errors.Is(err, breaker.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a silent server: %v", err)
	}
	if !b.closed.Load() {
		t.Fatal("the body was not closed after the timeout")
	}
	b = &body{Reader: strings.NewReader("x")}
	req, _ = http.NewRequestWithContext(t.Context(), http.MethodPost, url, b)
	if _, err = tr.RoundTrip(req); !errors.Is(err, breaker.ErrOpen) || !b.closed.Load() {
		t.Fatalf("open: %v, body closed %v", err, b.closed.Load())
	}
}

func TestDeadlineIsTheWholeRequests(t *testing.T) {
	tr, url := serve(t, breakerhttp.Config{Breaker: breaker.Config{Deadline: 100 * time.Millisecond}},
		func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("reading past the deadline: %v", err)
	}
}

func TestTheCallersCancellationIsNoFailure(t *testing.T) {
	tr, url := serve(t, breakerhttp.Config{Breaker: breaker.Config{Failures: 1}},
		func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	time.AfterFunc(50*time.Millisecond, cancel)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if _, err := tr.RoundTrip(req); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if c := tr.Breaker(req.URL.Host).Counts(); c != (breaker.Counts{Ignored: 1}) {
		t.Fatalf("counts %+v", c)
	}
}

func TestConnectionErrorsOpenOneHostOnly(t *testing.T) {
	tr, url := serve(t, breakerhttp.Config{Breaker: breaker.Config{Failures: 2}},
		func(http.ResponseWriter, *http.Request) {})
	gone := httptest.NewServer(nil)
	gone.Close()
	for range 3 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, gone.URL, nil)
		_, _ = tr.RoundTrip(req)
	}
	if s := tr.Breaker(strings.TrimPrefix(gone.URL, "http://")).State(); s != breaker.Open {
		t.Fatalf("the host that is gone: %v", s)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("the other host: %v", err)
	}
	res.Body.Close()
}

func TestTransportPropagatesTheCorrelationID(t *testing.T) {
	var got http.Header
	tr, url := serve(t, breakerhttp.Config{}, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	ctx := trace.ContextWithSpanContext(correlation.With(t.Context(), "c-1"), span)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got.Get("X-Correlation-ID") != "c-1" || !strings.Contains(got.Get("Traceparent"), span.TraceID().String()) {
		t.Fatalf("header %v", got)
	}
	if req.Header.Get("X-Correlation-ID") != "" {
		t.Fatal("the request was changed")
	}
}
