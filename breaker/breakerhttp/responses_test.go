package breakerhttp_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// tripper is a base as tests have them: http.Client forgives that there is no Request and no Body.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestBaseThatLeavesFieldsOut(t *testing.T) {
	status := http.StatusOK
	base := tripper(func(*http.Request) (*http.Response, error) {
		if status == 0 {
			return nil, nil //nolint:nilnil // that is what is tried
		}
		return &http.Response{StatusCode: status, Header: http.Header{}}, nil
	})
	tr := breakerhttp.Must(breakerhttp.NewTransport(base, breakerhttp.Config{
		Breaker: breaker.Config{Failures: 1, Retry: breaker.Retry{Attempts: 2, Backoff: breaker.Exponential(time.Millisecond,
			10*time.Second)}, OpenFor: time.Hour},
	}))
	c := breakerhttp.Must(breakerhttp.NewClientOver(tr, "http://users"))
	if _, err := breakerhttp.Get[struct{}](t.Context(), c, "1"); err != nil {
		t.Errorf("without a Request and a Body: %v", err)
	}
	status = http.StatusServiceUnavailable
	_, err := breakerhttp.Get[struct{}](t.Context(), c, "1")
	var answered *breakerhttp.ResponseError
	if !errors.As(err, &answered) || answered.URL != "http://users/1" {
		t.Errorf("a 503 without a Request: %v", err)
	}
	var open *breaker.OpenError
	var failed *breakerhttp.StatusError
	if _, err = breakerhttp.Get[struct{}](t.Context(), c, "1"); !errors.As(err, &open) ||
		!errors.As(open.LastErr, &failed) || failed.Host != "users" {
		t.Errorf("after it: %v", err)
	}
	status = 0
	tr.Breaker("users").Close()
	if _, err = breakerhttp.Get[struct{}](t.Context(), c, "1"); !errors.Is(err, breakerhttp.ErrUnavailable) {
		t.Errorf("neither a response nor an error: %v", err)
	}
}

func TestLargestMaxBody(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `"all"`)
	}))
	defer srv.Close()
	c := breakerhttp.Must(breakerhttp.NewClient(srv.URL, breakerhttp.Config{MaxBody: math.MaxInt64}))
	defer c.CloseIdleConnections()
	if v, err := breakerhttp.Get[string](t.Context(), c, ""); v != "all" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}

func TestAbsurdRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"99999999999999999999999999":    7 * time.Second, // more than 64 bits: longer than anybody waits, not no wait at all
		"9223372036854775807":           7 * time.Second,
		"-5":                            0,
		"soon":                          0,
		"Fri, 31 Dec 9999 23:59:59 GMT": 7 * time.Second,
		"Thu, 01 Jan 1970 00:00:00 GMT": 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Time
			base := tripper(func(*http.Request) (*http.Response, error) {
				at = append(at, time.Now())
				return &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {header}},
					Body: io.NopCloser(strings.NewReader(""))}, nil
			})
			tr := breakerhttp.Must(breakerhttp.NewTransport(base, breakerhttp.Config{
				Breaker: breaker.Config{Retry: breaker.Retry{Attempts: 2, Backoff: breaker.Exponential(time.Millisecond,
					10*time.Second)}}, MaxRetryAfter: 7 * time.Second,
			}))
			req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://users/", nil)
			if res, err := tr.RoundTrip(req); err != nil {
				t.Fatal(err)
			} else {
				_ = res.Body.Close()
			}
			if len(at) != 2 {
				t.Fatalf("%q: %d attempts", header, len(at))
			}
			if got := at[1].Sub(at[0]).Truncate(time.Second); got != want {
				t.Errorf("%q: a pause of %s, want %s", header, got, want)
			}
		})
	}
}

// stalling is a body that begins and does not go on.
type stalling struct {
	ctx   context.Context //nolint:containedctx // net/http's bodies end with the request's
	parts []string
	every time.Duration
}

func (s *stalling) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		<-s.ctx.Done()
		return 0, s.ctx.Err()
	}
	time.Sleep(s.every)
	n := copy(p, s.parts[0])
	s.parts = s.parts[1:]
	return n, nil
}
func (s *stalling) Close() error { return nil }

// A caller that asks for a T and gets no body does not wait for the end of one forever.
func TestBodyThatStalls(t *testing.T) {
	for status, parts := range map[int][]string{200: {`{"name":`, `"a`, `n`}, 409: {`{"title":`, `"con`}} {
		synctest.Test(t, func(t *testing.T) {
			base := tripper(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/problem+json"}},
					Body: &stalling{r.Context(), parts, 4 * time.Second}}, nil
			})
			tr := breakerhttp.Must(breakerhttp.NewTransport(base,
				breakerhttp.Config{Breaker: breaker.Config{Timeout: 5 * time.Second}}))
			c := breakerhttp.Must(breakerhttp.NewClientOver(tr, "http://users"))
			began := time.Now()
			_, err := breakerhttp.Get[map[string]string](context.Background(), c, "1")
			if took := time.Since(began).Truncate(time.Second); took != time.Duration(len(parts))*4*time.Second+5*time.Second {
				t.Errorf("%d: after %s", status, took)
			}
			if status == 200 && !(errors.Is(err, breaker.ErrTimeout) && errors.Is(err, breakerhttp.ErrUnavailable)) ||
				status == 409 && !errors.Is(err, breakerhttp.ErrConflict) {
				t.Errorf("%d: %v", status, err)
			}
		})
	}
}
