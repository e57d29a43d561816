package breakerhttp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// base is a RoundTripper that behaves as the contract says, and counts the bodies that it handed out and were closed.
type base struct {
	answer       func(req *http.Request) (*http.Response, error)
	opened, shut atomic.Int32
	contexts     []context.Context // of the attempts
}

func (b *base) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	b.contexts = append(b.contexts, req.Context())
	res, err := b.answer(req)
	if res != nil {
		b.opened.Add(1)
		res.Request, res.Body = req, &counted{ctx: req.Context(), Reader: strings.NewReader("text"), shut: &b.shut}
	}
	return res, err
}

// counted is the body of a response, which ends with its request's context.
type counted struct {
	io.Reader
	ctx    context.Context
	closed atomic.Bool
	shut   *atomic.Int32
}

func (c *counted) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.Reader.Read(p)
}

func (c *counted) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.shut.Add(1)
	}
	return nil
}

func status(code int) (*http.Response, error) {
	return &http.Response{StatusCode: code, Header: http.Header{}}, nil
}

// Whatever happens, the request's body is closed, and every response's body that the caller does not get.
func TestBodiesAreClosedOnEveryPath(t *testing.T) {
	var n int
	broken := errors.New("broken")
	sequence := func(codes ...int) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) {
			n++
			if code := codes[min(n, len(codes))-1]; code != 0 {
				return status(code)
			}
			return nil, broken
		}
	}
	three := breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(time.Second, 10*time.Second)}
	for name, c := range map[string]struct {
		cfg     breaker.Config
		answer  func(*http.Request) (*http.Response, error)
		prepare func(*breaker.Breaker)
		within  time.Duration
		noBody  bool // GetBody fails
		code    int
		err     error
	}{
		"success":                   {answer: sequence(200), code: 200},
		"failure":                   {answer: sequence(500), code: 500},
		"retried":                   {cfg: breaker.Config{Retry: three}, answer: sequence(500, 503, 200), code: 200},
		"exhausted":                 {cfg: breaker.Config{Retry: three}, answer: sequence(500, 503, 502), code: 502},
		"an error after a response": {cfg: breaker.Config{Retry: three}, answer: sequence(500, 500, 0), err: broken},
		"a response after an error": {cfg: breaker.Config{Retry: three}, answer: sequence(0, 0, 500), code: 500},
		"opened by it":              {cfg: breaker.Config{Retry: three, Failures: 2}, answer: sequence(500), code: 500},
		"no body for the retry":     {cfg: breaker.Config{Retry: three}, answer: sequence(500), noBody: true, err: broken},
		"open":                      {prepare: (*breaker.Breaker).Open, answer: sequence(200), err: breaker.ErrOpen},
		"full": {cfg: breaker.Config{Bulkhead: 1}, prepare: func(b *breaker.Breaker) {
			_, _ = b.Allow(context.Background())
		}, answer: sequence(200), err: breaker.ErrFull},
		"limited": {cfg: breaker.Config{Rate: 0.01}, prepare: func(b *breaker.Breaker) { runs(b) },
			answer: sequence(200), err: breaker.ErrLimited},
		"deadline past at entry": {answer: sequence(200), within: -1, err: context.DeadlineExceeded},
		"deadline in the pause":  {cfg: breaker.Config{Retry: three}, answer: sequence(500), within: 1, code: 500},
		"deadline in an attempt": {cfg: breaker.Config{Retry: three}, within: 10 * time.Second, err: context.DeadlineExceeded,
			answer: func(req *http.Request) (*http.Response, error) {
				if n++; n == 1 {
					return status(500)
				}
				<-req.Context().Done()
				return nil, req.Context().Err()
			}},
		"the header with the caller's deadline": {within: time.Second, err: context.DeadlineExceeded,
			answer: func(req *http.Request) (*http.Response, error) {
				<-req.Context().Done()
				return status(500)
			}},
		"the header with the timeout": {cfg: breaker.Config{Timeout: time.Second}, err: breaker.ErrTimeout,
			answer: func(req *http.Request) (*http.Response, error) {
				<-req.Context().Done()
				return status(200)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n = 0
				b := &base{answer: c.answer}
				tr := breakerhttp.Must(breakerhttp.NewTransport(b, breakerhttp.Config{Breaker: c.cfg}))
				if c.prepare != nil {
					c.prepare(tr.Breaker("h"))
				}
				ctx := t.Context()
				if c.within != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.within)
					defer cancel()
				}
				var bodies []*body
				next := func() *body {
					bodies = append(bodies, &body{Reader: strings.NewReader("x")})
					return bodies[len(bodies)-1]
				}
				req, _ := http.NewRequestWithContext(ctx, http.MethodPut, "http://h/", next())
				req.GetBody = func() (io.ReadCloser, error) {
					if c.noBody {
						return nil, broken
					}
					return next(), nil
				}
				res, err := tr.RoundTrip(req)
				if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
					t.Fatalf("%v, want %v", err, c.err)
				}
				if err == nil {
					if text, err := io.ReadAll(res.Body); res.StatusCode != c.code || string(text) != "text" || err != nil {
						t.Errorf("%d %q %v", res.StatusCode, text, err)
					}
					res.Body.Close()
				}
				for i, body := range bodies {
					if !body.closed.Load() {
						t.Errorf("body %d of the request is open", i)
					}
				}
				for i, ctx := range b.contexts {
					if ctx.Err() == nil {
						t.Errorf("the context of attempt %d goes on", i+1)
					}
				}
				if b.opened.Load() != b.shut.Load() {
					t.Errorf("%d bodies of responses, %d closed", b.opened.Load(), b.shut.Load())
				}
			})
		})
	}
}

func runs(b *breaker.Breaker) {
	_ = b.Run(context.Background(), func(context.Context) error { return nil })
}

// A base that panics, or ends its goroutine, leaves the breaker as it should be.
func TestBaseThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &base{answer: func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodGet {
				panic(req.Method)
			}
			runtime.Goexit()
			return nil, nil
		}}
		tr := breakerhttp.Must(breakerhttp.NewTransport(b, breakerhttp.Config{Breaker: breaker.Config{Bulkhead: 1}}))
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodGet} {
			go func() {
				defer func() { _ = recover() }()
				req, _ := http.NewRequestWithContext(t.Context(), method, "http://h/", nil)
				_, _ = tr.RoundTrip(req)
			}()
			synctest.Wait()
		}
		if c := tr.Breaker("h").Counts(); c != (breaker.Counts{Failures: 2, Ignored: 1, InARow: 2}) {
			t.Fatalf("%+v", c)
		}
	})
}

// The place in the bulkhead is free when the header is there, however long the body takes: the documented choice.
func TestBulkheadIsForTheHeader(t *testing.T) {
	release := make(chan struct{})
	tr, url := serve(t, breakerhttp.Config{Breaker: breaker.Config{Bulkhead: 1}},
		func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			if r.URL.Path == "/slow" {
				<-release
			}
		})
	var open []*http.Response
	for _, path := range []string{"/slow", "/", "/slow"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		open = append(open, res)
	}
	close(release)
	for _, res := range open {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
