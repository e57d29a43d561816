package breakerhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

// answers is a base transport that gives the next of its answers, each after a time, and heeds the context unless it is
// stubborn. Without an answer left it takes 5 ms.
type answers struct {
	mu       sync.Mutex
	next     []answer
	bodies   []string // of the requests
	methods  []string
	stubborn bool

	ended        atomic.Int32 // by the context
	opened, shut atomic.Int32
}

type answer struct {
	after time.Duration
	code  int // 0 for an error, -1 for a panic
}

var errReset = errors.New("connection reset")

func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent []byte
	if req.Body != nil {
		sent, _ = io.ReadAll(req.Body)
		_ = req.Body.Close()
	}
	a.mu.Lock()
	a.bodies, a.methods = append(a.bodies, string(sent)), append(a.methods, req.Method)
	now := answer{5 * time.Millisecond, 200}
	if len(a.next) > 0 {
		now, a.next = a.next[0], a.next[1:]
	}
	a.mu.Unlock()
	done := req.Context().Done()
	if a.stubborn {
		done = nil
	}
	select {
	case <-time.After(now.after):
	case <-done:
		a.ended.Add(1)
		return nil, req.Context().Err()
	}
	switch now.code {
	case 0:
		return nil, errReset
	case -1:
		panic(errReset)
	}
	a.opened.Add(1)
	return &http.Response{StatusCode: now.code, Header: http.Header{}, Body: &counted{ctx: req.Context(),
		Reader: strings.NewReader("text"), shut: &a.shut}}, nil
}

// warm makes enough requests for hedges.
func warm(t *testing.T, tr http.RoundTripper, a *answers) {
	t.Helper()
	for range 100 {
		if code, err := get(t.Context(), tr, http.MethodGet, nil); code != 200 || err != nil {
			t.Fatal(code, err)
		}
	}
	a.mu.Lock()
	a.bodies, a.methods = nil, nil
	a.mu.Unlock()
}

func get(ctx context.Context, tr http.RoundTripper, method string, body io.Reader) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://h/", body)
	if err != nil {
		return 0, err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	if text, err := io.ReadAll(res.Body); err != nil || string(text) != "text" {
		return 0, fmt.Errorf("the body of the answer: %q, %w", text, err)
	}
	return res.StatusCode, res.Body.Close()
}

// TestHedgeReturnsTheFirstAnswer gives the first request and the hedge each an answer, and checks which one the caller
// gets and when, what the breaker counts, and that the other request ends and every body is closed.
func TestHedgeReturnsTheFirstAnswer(t *testing.T) {
	const quick, slow = 20 * time.Millisecond, time.Second
	for name, c := range map[string]struct {
		method   string
		body     io.Reader
		next     []answer // of the first request, of the hedge, of retries
		cfg      breaker.Config
		stubborn bool

		code  int
		err   error
		takes time.Duration
		sent  int
		want  breaker.Counts
	}{
		"not needed": {next: []answer{{19 * time.Millisecond, 200}}, code: 200, takes: 19 * time.Millisecond,
			sent: 1, want: breaker.Counts{Successes: 1}},
		"the hedge wins": {next: []answer{{slow, 200}, {quick, 201}}, code: 201, takes: 40 * time.Millisecond, sent: 2,
			want: breaker.Counts{Successes: 1, Ignored: 1}},
		"the first wins": {next: []answer{{30 * time.Millisecond, 200}, {slow, 201}}, code: 200,
			takes: 30 * time.Millisecond, sent: 2, want: breaker.Counts{Successes: 1, Ignored: 1}},
		"a loser that is late": {next: []answer{{slow, 200}, {quick, 201}}, stubborn: true, code: 201,
			takes: 40 * time.Millisecond, sent: 2, want: breaker.Counts{Successes: 1, Ignored: 1}},
		"an error of the first": {next: []answer{{100 * time.Millisecond, 0}, {200 * time.Millisecond, 201}}, code: 201,
			takes: 220 * time.Millisecond,
			sent:  2, want: breaker.Counts{Successes: 1, Ignored: 1}},
		"an error before the hedge": {next: []answer{{10 * time.Millisecond, 0}}, err: errReset, takes: 10 * time.Millisecond,
			sent: 1, want: breaker.Counts{Failures: 1, InARow: 1}},
		"an error of the hedge": {next: []answer{{slow, 200}, {quick, 0}}, code: 200, takes: slow, sent: 2,
			want: breaker.Counts{Successes: 1, Ignored: 1}},
		"a failure of the hedge": {next: []answer{{slow, 200}, {quick, 503}}, code: 200, takes: slow, sent: 2,
			want: breaker.Counts{Successes: 1, Ignored: 1}},
		"a failure of the first": {next: []answer{{100 * time.Millisecond, 503}, {quick * 10, 200}}, code: 200,
			takes: 220 * time.Millisecond, sent: 2, want: breaker.Counts{Successes: 1, Ignored: 1}},
		"both fail": {next: []answer{{slow, 502}, {quick, 503}}, code: 502, takes: slow, sent: 2,
			want: breaker.Counts{Failures: 1, InARow: 1, Ignored: 1}},
		"both are errors": {next: []answer{{quick * 2, 0}, {slow, 0}}, err: errReset, takes: slow + quick, sent: 2,
			want: breaker.Counts{Failures: 1, InARow: 1, Ignored: 1}},
		"both fail, then a retry": {next: []answer{{quick * 2, 500}, {quick * 2, 500}, {quick / 2, 200}},
			cfg:  breaker.Config{Retry: breaker.Retry{Attempts: 2, Backoff: breaker.Constant(0)}},
			code: 200, takes: 70 * time.Millisecond, sent: 3, want: breaker.Counts{Failures: 1, Successes: 1, Ignored: 1}},
		"404 of a GET": {next: []answer{{slow, 200}, {quick, 404}}, code: 404, takes: 40 * time.Millisecond, sent: 2,
			want: breaker.Counts{Successes: 1, Ignored: 1}},
		"a DELETE overtaken": {method: "DELETE", next: []answer{{slow, 204}, {quick, 404}}, code: 204, takes: slow,
			sent: 2, want: breaker.Counts{Successes: 1, Ignored: 1}},
		"a DELETE that is late": {method: "DELETE", next: []answer{{30 * time.Millisecond, 404},
			{100 * time.Millisecond, 204}}, code: 204, takes: 120 * time.Millisecond, sent: 2, want: breaker.Counts{Successes: 1,
			Ignored: 1}},
		"a PUT that can be replayed": {method: "PUT", body: strings.NewReader("payload"),
			next: []answer{{slow, 200}, {quick, 201}}, code: 201, takes: 40 * time.Millisecond,
			sent: 2, want: breaker.Counts{Successes: 1, Ignored: 1}},
		"a PUT that cannot": {method: "PUT", body: io.MultiReader(strings.NewReader("payload")),
			next: []answer{{slow, 200}}, code: 200, takes: slow, sent: 1, want: breaker.Counts{Successes: 1}},
		"a POST": {method: "POST", body: strings.NewReader("payload"), next: []answer{{slow, 200}},
			code: 200, takes: slow, sent: 1, want: breaker.Counts{Successes: 1}},
		"no place for the hedge": {cfg: breaker.Config{Bulkhead: 1}, next: []answer{{slow, 200}}, code: 200, takes: slow,
			sent: 1, want: breaker.Counts{Successes: 1}},
		"the limit allows none": {cfg: breaker.Config{Adaptive: breaker.AdaptiveLimit{Max: 1}}, next: []answer{{slow, 200}},
			code: 200, takes: slow, sent: 1, want: breaker.Counts{Successes: 1}},
		"the timeout is for both": {cfg: breaker.Config{Timeout: 100 * time.Millisecond},
			next: []answer{{slow, 200}, {slow, 200}}, err: breaker.ErrTimeout, takes: 100 * time.Millisecond, sent: 2,
			want: breaker.Counts{Failures: 1, InARow: 1, Ignored: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{}
				var hedges atomic.Int32
				c.cfg.OnCall = func(k breaker.Call) {
					if errors.Is(k.Err, breakerhttp.ErrHedge) && k.Outcome == breaker.Ignore && k.Rejected == "" {
						hedges.Add(1)
					}
				}
				tr := breakerhttp.Must(breakerhttp.NewTransport(a, breakerhttp.Config{Breaker: c.cfg,
					Hedge: breakerhttp.Hedge{Quantile: 0.95, MinDelay: quick, Budget: 0.5}}))
				warm(t, tr, a)
				a.next, a.stubborn = c.next, c.stubborn
				tr.Breaker("h").Close()
				began := time.Now()
				method := c.method
				if method == "" {
					method = http.MethodGet
				}
				code, err := get(t.Context(), tr, method, c.body)
				if code != c.code || !errors.Is(err, c.err) || time.Since(began) != c.takes {
					t.Errorf("got %d, %v after %s; want %d, %v after %s", code, err, time.Since(began), c.code, c.err, c.takes)
				}
				if got := tr.Breaker("h").Counts(); got != c.want {
					t.Errorf("counted %+v, want %+v", got, c.want)
				}
				time.Sleep(slow)
				synctest.Wait()
				if len(a.bodies) != c.sent {
					t.Errorf("%d requests, want %d", len(a.bodies), c.sent)
				}
				for _, b := range a.bodies {
					if c.body != nil && b != "payload" {
						t.Errorf("sent %q", b)
					}
				}
				if a.opened.Load() != a.shut.Load() {
					t.Errorf("%d bodies, %d closed", a.opened.Load(), a.shut.Load())
				}
				if int(hedges.Load()) != int(c.want.Ignored) {
					t.Errorf("hooks saw %d hedges, want %d", hedges.Load(), c.want.Ignored)
				}
				if _, n := tr.Breaker("h").Limit(); n != 0 {
					t.Errorf("%d in flight", n)
				}
			})
		})
	}
}

// A service that is slow for all is not given more load than the budget says.
func TestHedgesAreAShareOfTheRequests(t *testing.T) {
	for budget, want := range map[float64][2]int{0: {100, 115}, 0.02: {15, 31}, 1: {1000, 1000}, -1: {1000, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			a := &answers{}
			tr := breakerhttp.Must(breakerhttp.NewTransport(a,
				breakerhttp.Config{Hedge: breakerhttp.Hedge{Quantile: 0.01, Budget: budget}}))
			warm(t, tr, a)
			for n := range 1000 {
				if n%20 == 0 { // some are quick, so that the delay stays
					_, _ = get(t.Context(), tr, http.MethodGet, nil)
				}
				a.next = []answer{{40 * time.Millisecond, 200}}
				if _, err := get(t.Context(), tr, http.MethodGet, nil); err != nil {
					t.Fatal(err)
				}
			}
			if hedges := len(a.bodies) - 1050; hedges < want[0] || hedges > want[1] {
				t.Errorf("budget %v: %d hedges of 1050 requests, want %d to %d", budget, hedges, want[0], want[1])
			}
		})
	}
}

// A panic of the base transport is the caller's, with a hedge too.
func TestHedgeWithABaseThatPanics(t *testing.T) {
	for _, next := range [][]answer{{{0, -1}}, {{50 * time.Millisecond, -1}, {time.Second, 200}},
		{{time.Second, 200}, {0, -1}}} {
		synctest.Test(t, func(t *testing.T) {
			a := &answers{}
			tr := breakerhttp.Must(breakerhttp.NewTransport(a, breakerhttp.Config{Hedge: breakerhttp.Hedge{Quantile: 0.95},
				Breaker: breaker.Config{Bulkhead: 2}}))
			warm(t, tr, a)
			a.next = next
			func() {
				defer func() {
					if p := recover(); p != errReset {
						t.Errorf("recovered %v", p)
					}
				}()
				_, _ = get(t.Context(), tr, http.MethodGet, nil)
			}()
			synctest.Wait()
			if int(a.ended.Load()) != len(next)-1 {
				t.Errorf("%d of %d other requests were cancelled", a.ended.Load(), len(next)-1)
			}
			for range 2 { // the places are given back
				if _, err := get(t.Context(), tr, http.MethodGet, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestHedgesOverTheNetwork runs many requests with bodies at once against a real server, for the race detector.
func TestHedgesOverTheNetwork(t *testing.T) {
	var n, wrong atomic.Int32
	tr, url := serve(t, breakerhttp.Config{Hedge: breakerhttp.Hedge{Quantile: 0.5, MinDelay: -1, Budget: -1},
		Breaker: breaker.Config{Failures: -1}},
		func(w http.ResponseWriter, r *http.Request) {
			if text, err := io.ReadAll(r.Body); err == nil && string(text) != "payload" {
				wrong.Add(1)
			}
			if n.Add(1)%7 == 0 {
				time.Sleep(3 * time.Millisecond)
			}
			_, _ = io.WriteString(w, strings.Repeat("answer", 1000))
		})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader("payload"))
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				text, err := io.ReadAll(res.Body)
				if err != nil || len(text) != 6000 {
					t.Errorf("%d bytes, %v", len(text), err)
				}
				_ = res.Body.Close()
				req.Header.Set("X-Reused", "1") // the caller may change the request now
			}
		})
	}
	wg.Wait()
	if wrong.Load() != 0 || n.Load() <= 400 {
		t.Errorf("%d wrong bodies, %d requests", wrong.Load(), n.Load())
	}
}

func TestHedgeRefusesSenselessConfigs(t *testing.T) {
	for _, h := range []breakerhttp.Hedge{{Quantile: 1}, {Quantile: 95}, {Quantile: math.NaN()},
		{Quantile: 0.9, Budget: 1.1}, {Quantile: 0.9, Budget: math.NaN()}} {
		if _, err := breakerhttp.NewTransport(nil, breakerhttp.Config{Hedge: h}); err == nil {
			t.Errorf("%+v: no error", h)
		}
	}
}

func ExampleHedge() {
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 50 { // one request is unlucky
			<-r.Context().Done()
		}
	}))
	defer srv.Close()
	tr := breakerhttp.Must(breakerhttp.NewTransport(nil, breakerhttp.Config{Hedge: breakerhttp.Hedge{Quantile: 0.95}}))
	defer tr.CloseIdleConnections()
	client, failed := &http.Client{Transport: tr}, 0
	for range 60 {
		res, err := client.Get(srv.URL)
		if err != nil {
			failed++
			continue
		}
		_ = res.Body.Close()
	}
	fmt.Println(failed, "failed")
	// Output: 0 failed
}

// The span of a call learns of a hedge.
func TestHedgeIsASpanEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{}
		tr := breakerhttp.Must(breakerhttp.NewTransport(a, breakerhttp.Config{Hedge: breakerhttp.Hedge{Quantile: 0.95}}))
		warm(t, tr, a)
		a.next = []answer{{time.Second, 200}}
		rec := tracetest.NewSpanRecorder()
		ctx, span := trace.NewTracerProvider(trace.WithSpanProcessor(rec)).Tracer("t").Start(t.Context(), "call")
		if _, err := get(ctx, tr, http.MethodGet, nil); err != nil {
			t.Fatal(err)
		}
		span.End()
		got := rec.Ended()[0].Events()
		if len(got) != 1 || got[0].Name != "breaker.hedge" || got[0].Attributes[0].Value.AsString() != "http/h" {
			t.Errorf("events %v", got)
		}
	})
}
