package breakerhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// brokenBody fails after some bytes.
type brokenBody struct{ io.Reader }

var errDisk = errors.New("disk: read error")

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = errDisk
	}
	return n, err
}

// TestLocalErrorsOpenNothing sends what cannot be sent, over HTTP/1 and HTTP/2, more often than opens a breaker: the
// breaker counts nothing, the caller gets what docs/local-errors.md says, and the next request passes.
func TestLocalErrorsOpenNothing(t *testing.T) {
	got := map[string]map[string]string{} // what the caller got, by error and protocol
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	end := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Query().Get("hang") != "" {
			<-end // not the end of r's context, whose answer may still win against the client's
		}
		if n := r.URL.Query().Get("headers"); n != "" {
			w.Header().Set("X-Long", strings.Repeat("a", 40<<10))
		}
	})
	for protocol, h2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		srv := httptest.NewUnstartedServer(handler)
		srv.EnableHTTP2 = h2
		srv.Config.MaxHeaderBytes = 16 << 10
		srv.StartTLS()
		defer srv.Close()
		base := srv.Client().Transport.(*http.Transport)
		base.MaxResponseHeaderBytes = 32 << 10
		for name, change := range map[string]func(r *http.Request){
			"a header with a newline":    func(r *http.Request) { r.Header.Set("X-Note", "a\nb") },
			"a header with a NUL":        func(r *http.Request) { r.Header.Set("X-Note", "a\x00") },
			"a header name with a space": func(r *http.Request) { r.Header["X Note"] = []string{"a"} },
			"an empty header name":       func(r *http.Request) { r.Header[""] = []string{"a"} },
			"a method with a space":      func(r *http.Request) { r.Method = "GE T" },
			"a host with a newline":      func(r *http.Request) { r.Host = "a\nb" },
			"a path with a control":      func(r *http.Request) { r.URL.Opaque = "//x/\x01" },
			"a body that cannot be read": func(r *http.Request) {
				r.Method, r.Body = "POST", io.NopCloser(&brokenBody{strings.NewReader("abc")})
			},
			"a body shorter than said": func(r *http.Request) {
				r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("abc")), 10
			},
			"a body longer than said": func(r *http.Request) {
				r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("abcdef")), 3
			},
			"a trailer with a space": func(r *http.Request) {
				r.Method, r.Body, r.Trailer = "POST", io.NopCloser(strings.NewReader("abc")), http.Header{"A b": nil}
			},
			"a trailer that is forbidden": func(r *http.Request) {
				r.Method, r.Body, r.Trailer = "POST", io.NopCloser(strings.NewReader("abc")), http.Header{"Content-Length": nil}
			},
			"a scheme that is not HTTP":          func(r *http.Request) { r.URL.Scheme = "ftp" },
			"an answer above our limit":          func(r *http.Request) { r.URL.RawQuery = "headers=1" },
			"a Transfer-Encoding with a control": func(r *http.Request) { r.Header.Set("Transfer-Encoding", "gzip\x7f") },
			"a context that is cancelled":        func(r *http.Request) { *r = *r.WithContext(cancelled) },
			"a deadline that is past":            func(r *http.Request) { *r = *r.WithContext(past) },
			"a cancellation during the call": func(r *http.Request) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(10*time.Millisecond, cancel)
				r.URL.RawQuery = "hang=1"
				*r = *r.WithContext(ctx)
			},
			"a short deadline that passes": func(r *http.Request) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				context.AfterFunc(ctx, cancel)
				r.URL.RawQuery = "hang=1"
				*r = *r.WithContext(ctx)
			},
		} {
			if got[name] == nil {
				got[name] = map[string]string{}
			}
			if h2 && name == "a body shorter than said" { // it is sent, and the server answers
				got[name][protocol] = "the answer"
				continue
			}
			t.Run(protocol+"/"+name, func(t *testing.T) {
				tr := breakerhttp.Must(breakerhttp.NewTransport(base,
					breakerhttp.Config{Breaker: breaker.Config{Failures: 2, Retry: breaker.Retry{Attempts: 3,
						Backoff: breaker.Constant(time.Millisecond)}}}))
				// The server may answer what was announced before this side notices that there is more.
				racing, answers := !h2 && name == "a body longer than said", uint64(0)
				for range 5 {
					r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/", nil)
					if err != nil {
						t.Fatal(err)
					}
					change(r)
					res, err := tr.RoundTrip(r)
					if err == nil && racing {
						_ = res.Body.Close()
						answers++
						continue
					}
					if err == nil {
						_ = res.Body.Close()
						t.Fatalf("it was sent: %s", res.Status)
					}
					switch {
					case errors.Is(err, breakerhttp.ErrLocal):
						got[name][protocol] = "`ErrLocal`"
					case errors.Is(err, context.Canceled):
						got[name][protocol] = "`context.Canceled`"
					case errors.Is(err, context.DeadlineExceeded):
						got[name][protocol] = "`context.DeadlineExceeded`"
					default:
						t.Errorf("got %v, want ErrLocal or the error of the caller's context", err)
					}
					if strings.Contains(name, "cannot be read") && !h2 && !errors.Is(err, errDisk) {
						t.Errorf("got %v, want the reader's error in it", err)
					}
				}
				if b := tr.Breaker(strings.TrimPrefix(srv.URL, "https://")); b.State() != breaker.Closed ||
					b.Counts().Failures != 0 || b.Counts().Successes != answers {
					t.Errorf("counted %+v, %s", b.Counts(), b.State())
				}
				if racing {
					got[name][protocol] = "`ErrLocal`, or the answer"
				}
				r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := tr.RoundTrip(r)
				if err != nil {
					t.Fatalf("the next request: %v", err)
				}
				_ = res.Body.Close()
			})
		}
	}
	close(end)
	table := "| error | HTTP/1 | HTTP/2 |\n|---|---|---|\n"
	for _, name := range slices.Sorted(maps.Keys(got)) {
		table += fmt.Sprintf("| %s | %s | %s |\n", name, got[name]["HTTP/1"], got[name]["HTTP/2"])
	}
	page, err := os.ReadFile("../../docs/local-errors.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), table) {
		t.Errorf("docs/local-errors.md does not have this table:\n%s", table)
	}
}

// What says something about the other side counts, a failed dial among it.
func TestFailuresOfTheOtherSideCount(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	garbage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	go func() {
		for {
			c, err := garbage.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1024))
			_, _ = io.WriteString(c, "not HTTP\r\n\r\n")
			_ = c.Close()
		}
	}()
	for name, url := range map[string]string{"a refused connection": closed.URL, "no HTTP": "http://" +
		garbage.Addr().String()} {
		tr := breakerhttp.Must(breakerhttp.NewTransport(nil, breakerhttp.Config{Breaker: breaker.Config{Failures: 2}}))
		for range 2 {
			r, err := http.NewRequestWithContext(context.Background(), "GET", url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tr.RoundTrip(r); err == nil || errors.Is(err, breakerhttp.ErrLocal) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s := tr.Breaker(strings.TrimPrefix(url, "http://")).State(); s != breaker.Open {
			t.Errorf("%s: the breaker is %s, want open", name, s)
		}
		tr.CloseIdleConnections()
	}
}

// Trace and correlation ids stay with our own services where the program says so.
func TestPropagateKeepsHeadersFromThirdParties(t *testing.T) {
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer srv.Close()
	for own, want := range map[string]bool{"127.0.0.1": true, "users.internal": false} {
		c := breakerhttp.Must(breakerhttp.NewClient(srv.URL, breakerhttp.Config{Propagate: func(host string) bool {
			return host == own
		}}))
		span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
		if _, err := breakerhttp.Get[any](trace.ContextWithSpanContext(t.Context(), span), c, "/"); err != nil {
			t.Fatal(err)
		}
		if _, sent := got["Traceparent"]; sent != want {
			t.Errorf("own services are %s: traceparent sent: %v, want %v", own, sent, want)
		}
	}
}
