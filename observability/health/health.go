package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config tunes a Health. The zero Config is useful.
type Config struct {
	// Service is named in the answers. Default none.
	Service string
	// Timeout bounds one run of one check. Default 2 s. It should be shorter than the prober's own.
	Timeout time.Duration
	// CacheFor is how long a result is served before the check runs again. Default 1 s. Negative: always run.
	CacheFor time.Duration
	// Details shows the text of failed checks under ?verbose. Default false: only their names and states.
	Details bool
}

// Health holds the checks of a service and answers for it.
type Health struct {
	cfg      Config
	draining atomic.Bool
	mu       sync.Mutex
	checks   []*check
}

type check struct {
	name     string
	degraded bool
	timeout  time.Duration
	fn       func(context.Context) error

	mu      sync.Mutex
	at      time.Time     // when the result was made
	err     error         // the result
	running chan struct{} // closed when the run that is under way has a result; nil when none is
	busy    bool          // the function has not returned yet, though its time may be over
}

// Errors of checks, in verbose answers.
var (
	// ErrHung is the result of a check that did not return in time.
	ErrHung = errors.New("health: the check did not return in time")
	// ErrPanicked is the result of a check that panicked.
	ErrPanicked = errors.New("health: the check panicked")
)

// Option tunes a check.
type Option func(*check)

// Degraded makes a check informative: when it fails, the service is degraded and stays ready. It is for what a
// service can do without for a while: an open breaker, a cache.
func Degraded() Option { return func(c *check) { c.degraded = true } }

// Timeout bounds the check in place of Config.Timeout, when d is more than 0.
func Timeout(d time.Duration) Option {
	return func(c *check) {
		if d > 0 {
			c.timeout = d
		}
	}
}

// New returns a Health without checks: alive and ready.
func New(cfg Config) (*Health, error) {
	if cfg.Timeout < 0 {
		return nil, errors.New("health: Config.Timeout is negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.CacheFor == 0 {
		cfg.CacheFor = time.Second
	}
	return &Health{cfg: cfg}, nil
}

// Must returns h or panics with err.
func Must(h *Health, err error) *Health {
	if err != nil {
		panic(err)
	}
	return h
}

// Add adds a check. fn returns nil while its dependency works, and ends with its context. A second check of the same
// name replaces the first.
func (h *Health) Add(name string, fn func(context.Context) error, opts ...Option) {
	c := &check{name: name, fn: fn, timeout: h.cfg.Timeout}
	for _, o := range opts {
		o(c)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = slices.DeleteFunc(h.checks, func(x *check) bool { return x.name == name })
	h.checks = append(h.checks, c)
	slices.SortFunc(h.checks, func(a, b *check) int { return strings.Compare(a.name, b.name) })
}

// Drain makes the service unready from now on. Run calls it.
func (h *Health) Drain() { h.draining.Store(true) }

// Draining reports whether Drain has been called.
func (h *Health) Draining() bool { return h.draining.Load() }

// Result is what one check said.
type Result struct {
	// Name of the check.
	Name string `json:"name"`
	// Status is "up", "degraded" or "down".
	Status string `json:"status"`
	// Error is why, where Config.Details allows it.
	Error string `json:"error,omitempty"`
}

// Report is what a service says of itself.
type Report struct {
	// Status is "up", "degraded", "down" or "draining".
	Status string `json:"status"`
	// Service is Config.Service.
	Service string `json:"service,omitempty"`
	// Checks are the results, by name; only with ?verbose.
	Checks []Result `json:"checks,omitempty"`
}

// Report runs the checks whose results are too old, side by side, and says what they say.
func (h *Health) Report(ctx context.Context) Report {
	h.mu.Lock()
	checks := slices.Clone(h.checks)
	h.mu.Unlock()
	errs := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { errs[i] = c.result(ctx, h.cfg.CacheFor) })
	}
	wg.Wait()
	rep := Report{Status: "up", Service: h.cfg.Service, Checks: make([]Result, len(checks))}
	for i, c := range checks {
		r := Result{Name: c.name, Status: "up"}
		if errs[i] != nil {
			r.Status = "down"
			if c.degraded {
				r.Status = "degraded"
			}
			if h.cfg.Details {
				r.Error = errs[i].Error()
			}
		}
		if r.Status == "down" || r.Status == "degraded" && rep.Status == "up" {
			rep.Status = r.Status
		}
		rep.Checks[i] = r
	}
	if h.Draining() {
		rep.Status = "draining"
	}
	return rep
}

// result returns the cached result, or that of the run under way, or starts one. The run has its own time, so that a
// prober that gives up does not spoil the result for others.
func (c *check) result(ctx context.Context, cacheFor time.Duration) error {
	c.mu.Lock()
	if c.running == nil && !c.busy && (c.at.IsZero() || time.Since(c.at) >= cacheFor) {
		c.running, c.busy = make(chan struct{}), true
		go c.run(context.WithoutCancel(ctx), c.running)
	}
	running, err := c.running, c.err
	c.mu.Unlock()
	if running == nil {
		return err
	}
	select {
	case <-running:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run calls the function. When it does not return in time the result is ErrHung, and stays so until it returns.
func (c *check) run(ctx context.Context, running chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	over := false
	settle := func(err error, returned bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if over { // it returned at the moment at which it was given up
			return
		}
		over = returned
		c.err, c.at, c.busy = err, time.Now(), !returned
		if c.running == running {
			close(running)
			c.running = nil
		}
	}
	hung := time.AfterFunc(
		c.timeout+c.timeout/10,
		func() { settle(ErrHung, false) },
	) // a little later than the context's own end
	defer hung.Stop()
	err := ErrPanicked
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrPanicked, p)
		}
		settle(err, true)
	}()
	err = c.fn(ctx)
}

// Health serves /health: 200 as long as the process answers.
func (h *Health) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rep := Report{Status: "up", Service: h.cfg.Service}
		if verbose(r) {
			rep = h.Report(r.Context())
		}
		send(w, http.StatusOK, rep)
	})
}

// Ready serves /ready: 200 when requests may come, 503 when a check is down or the service drains. With ?verbose it
// names the checks.
func (h *Health) Ready() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rep := Report{Status: "draining", Service: h.cfg.Service}
		if !h.Draining() || verbose(r) {
			rep = h.Report(r.Context())
		}
		status := http.StatusOK
		if rep.Status == "down" || rep.Status == "draining" {
			status = http.StatusServiceUnavailable
		}
		if !verbose(r) {
			rep.Checks = nil
		}
		send(w, status, rep)
	})
}

// Register adds /health and /ready to a mux.
func (h *Health) Register(mux interface{ Handle(string, http.Handler) }) {
	mux.Handle("GET /health", h.Health())
	mux.Handle("GET /ready", h.Ready())
}

func verbose(r *http.Request) bool {
	q := r.URL.Query()
	return q.Has("verbose") && q.Get("verbose") != "0" && q.Get("verbose") != "false"
}

func send(w http.ResponseWriter, status int, rep Report) {
	data, err := json.Marshal(rep)
	if err != nil { // strings always encode
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(data) // a prober that has gone needs no answer
}
