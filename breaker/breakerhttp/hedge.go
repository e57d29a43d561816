package breakerhttp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/internal/spanevent"
	"github.com/sillar-go/sillar/internal/httpcheck"
)

// Hedge says whether a second request is sent beside one that is slow; the first good answer is returned, and the other
// request is cancelled. It cuts the latencies that are due to chance, a slow instance or a lost packet (Dean, Barroso:
// "The Tail at Scale", CACM 56(2), 2013). It needs several instances behind the host, or a service that serves requests
// independently.
//
// Only requests that may be retried are hedged. The answer of either request ends the wait when it is a success for
// Classify and, where the method is not a safe one, its status is below 400: of two DELETEs at once, one may find that
// the other was first. When no answer is good, the answer of the first request is returned.
//
// A hedge passes the breaker and its limits as every request does, and is not sent when it is rejected. Both requests
// together count as one call, the hedge as Ignore with ErrHedge. Cancelling a request closes its connection with
// HTTP/1, not with HTTP/2.
type Hedge struct {
	// Quantile of the recent latencies of the host, or of the key, is the delay after which the second request is sent;
	// in (0, 1), such as 0.95. Default off. The first 32 requests are not hedged.
	Quantile float64
	// MinDelay is the least delay. Default 10 ms. Negative: none.
	MinDelay time.Duration
	// Budget is the share of requests that may be hedged, so that a service that is slow for all is not given more
	// load. Default 0.1. Negative: no bound.
	Budget float64
}

// ErrHedge is what the hooks of a breaker see of a request that was sent beside a slow one.
var ErrHedge = errors.New("breakerhttp: a hedge ended")

func (h *Hedge) setDefaults() error {
	switch {
	case !(h.Quantile < 1): // NaN too
		return fmt.Errorf("breakerhttp: Config.Hedge.Quantile is %v, want less than 1", h.Quantile)
	case !(h.Budget <= 1):
		return fmt.Errorf("breakerhttp: Config.Hedge.Budget is %v, want at most 1", h.Budget)
	}
	if h.MinDelay == 0 {
		h.MinDelay = 10 * time.Millisecond
	}
	if h.Budget == 0 {
		h.Budget = 0.1
	}
	return nil
}

const (
	hedgeFirst  = 32 // latencies before the first hedge
	hedgeEvery  = 16 // after so many, the delay is computed anew
	hedgeKept   = 256
	hedgeTokens = 10 // the most that quiet times save
)

// latencies are the recent latencies of a key, and its budget of hedges.
type latencies struct {
	mu     sync.Mutex
	recent [hedgeKept]time.Duration
	n      int
	delay  time.Duration
	tokens float64
}

// begin pays for a request and returns the delay of its hedge, 0 for none.
func (l *latencies) begin(h Hedge) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = min(hedgeTokens, l.tokens+h.Budget)
	if l.n < hedgeFirst {
		return 0
	}
	return max(1, h.MinDelay, l.delay)
}

func (l *latencies) withdraw(h Hedge) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.Budget < 0 {
		return true
	}
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

func (l *latencies) add(h Hedge, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent[l.n%hedgeKept] = d
	l.n++
	if l.n >= hedgeFirst && l.n%hedgeEvery == 0 {
		sorted := slices.Clone(l.recent[:min(l.n, hedgeKept)])
		slices.Sort(sorted)
		l.delay = sorted[int(math.Ceil(h.Quantile*float64(len(sorted))))-1]
	}
}

// latenciesOf returns the latencies of a key. When there are too many keys, a further key replaces them all.
func (t *Transport) latenciesOf(key string) *latencies {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.latencies[key]
	if !ok {
		if len(t.latencies) >= t.maxKeys {
			for other := range t.latencies {
				delete(t.latencies, other)
				break
			}
		}
		l = new(latencies)
		t.latencies[key] = l
	}
	return l
}

// sending is one request on its way, and its result.
type sending struct {
	req    *http.Request
	body   *httpcheck.Body
	cancel context.CancelFunc
	began  time.Time
	hedge  bool

	res      *http.Response
	err      error
	outcome  breaker.Outcome
	judged   bool // outcome is known
	panicked any
}

// discard gives up what the caller does not get.
func (s *sending) discard() {
	s.cancel()
	if s.res != nil {
		_ = s.res.Body.Close()
	}
}

func (e *exchange) hedgeable() bool {
	return e.t.cfg.Hedge.Quantile > 0 && e.repeatable && e.req.Header.Get("Upgrade") == ""
}

// sendHedged sends the request, and a second one beside it when the answer takes long. It returns when the loser is
// cancelled, and waits no longer for it: its goroutine closes what comes after all.
func (e *exchange) sendHedged(ctx context.Context) *sending {
	h, seen := e.t.cfg.Hedge, e.t.latenciesOf(e.key)
	first, err := e.start(ctx, false)
	if err != nil {
		return &sending{err: err}
	}
	results, over := make(chan *sending), make(chan struct{})
	defer close(over)
	go e.run(first, results, over)
	var due <-chan time.Time
	if delay := seen.begin(h); delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		due = timer.C
	}
	var second, held *sending
	for {
		select {
		case <-due:
			done, admitted := e.admitHedge(ctx, seen)
			if !admitted {
				continue
			}
			defer done()
			if second, err = e.start(ctx, true); err != nil {
				second = nil
				continue
			}
			spanevent.Hedge(ctx, e.guard.Name())
			go e.run(second, results, over)
		case s := <-results:
			switch other := held; {
			case s.panicked != nil:
				if other != nil {
					other.discard()
				}
				first.cancel()
				if second != nil {
					second.cancel()
				}
				panic(s.panicked)
			case second == nil:
				if e.judge(ctx, s); s.judged && s.outcome == breaker.Success {
					seen.add(h, time.Since(s.began))
				}
				return s
			case e.good(ctx, s):
				seen.add(h, time.Since(first.began)) // at least so long, when the second has won
				if other != nil {
					other.discard()
				} else if s == first {
					second.cancel()
				} else {
					first.cancel()
				}
				return s
			case other == nil:
				held = s
			case s == first:
				other.discard()
				return s
			default:
				s.discard()
				return other
			}
		}
	}
}

// start makes a request with a context of its own.
func (e *exchange) start(ctx context.Context, hedge bool) (*sending, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, body, err := e.request(ctx, hedge || e.attempts > 1)
	if err != nil {
		cancel()
		return nil, err
	}
	return &sending{req: req, body: body, cancel: cancel, began: time.Now(), hedge: hedge}, nil
}

// run sends the request on a goroutine of its own, and closes its response when the exchange is over.
func (e *exchange) run(s *sending, results chan<- *sending, over <-chan struct{}) {
	returned := false
	defer func() {
		if !returned {
			if s.panicked = recover(); s.panicked == nil {
				s.err = errors.New("breakerhttp: the base transport ended its goroutine")
			}
		}
		select {
		case results <- s:
		case <-over:
			s.discard()
		}
	}()
	s.res, s.err = e.send(s.req) //nolint:bodyclose // the winner's is the caller's, discard closes the other
	returned = true
}

// admitHedge asks the budget and the breaker for a second request.
func (e *exchange) admitHedge(ctx context.Context, seen *latencies) (done func(), ok bool) {
	if ctx.Err() != nil || !seen.withdraw(e.t.cfg.Hedge) {
		return nil, false
	}
	report, err := e.guard.Allow(ctx)
	if err != nil {
		return nil, false
	}
	return func() { report(&attemptError{error: ErrHedge, outcome: breaker.Ignore}) }, true
}

// judge finds out what a response means, once.
func (e *exchange) judge(ctx context.Context, s *sending) {
	if s.err == nil && !s.judged {
		s.outcome, s.judged = e.t.cfg.Classify(ctx, s.res, nil), true
	}
}

// good says whether an answer is one to return while the other request is on its way.
func (e *exchange) good(ctx context.Context, s *sending) bool {
	e.judge(ctx, s)
	if !s.judged || s.outcome != breaker.Success {
		return false
	}
	switch e.req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return s.res.StatusCode < 400
}
