package breakerhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/internal/spanevent"
	"github.com/sillar-go/sillar/internal/correlation"
)

// Config says how requests are guarded. The zero Config is useful. In every field 0 is the default and a negative value
// is off, save where a field says that it is refused.
type Config struct {
	// Breaker is the configuration of the breaker of each host; its Name is their prefix, default "http". Its zero value
	// is a timeout of 10 s for an attempt and a breaker; retries are on when Retry.Attempts is more than 1. Its Classify
	// is not used: see Classify here.
	Breaker breaker.Config
	// Key divides the requests to a host among several breakers. Default: one for each host.
	Key KeyFunc
	// MaxHosts bounds the hosts, or with Key the pairs of host and key, that have a breaker of their own. Default 1,024. A
	// negative one is refused.
	MaxHosts int
	// Classify returns what an attempt means; res is nil when there is none, its body must not be read. Default
	// DefaultClassify.
	Classify func(ctx context.Context, res *http.Response, err error) breaker.Outcome
	// Hedge says whether a second request is sent beside a slow one. The zero value: not.
	Hedge Hedge
	// MaxRetryAfter bounds the pause that a Retry-After header asks for. Default 30 s. Negative: the header is not heeded.
	MaxRetryAfter time.Duration
	// Propagator writes trace and correlation id into the header. Default: W3C trace context and X-Correlation-ID.
	Propagator propagation.TextMapPropagator
	// Propagate says whether the headers of Propagator are sent to a host. Default: to every host. A client that also
	// calls services of others returns false for those, which have no use for our ids.
	Propagate func(host string) bool
	// MaxBody bounds the response bodies that a Client reads, in bytes. Default 10 MiB. A Transport does not use it.
	MaxBody int64
}

// DefaultClassify takes 5xx, 429 and every error for Failure, save the end of ctx by cancellation, which is Ignore. All
// other statuses are Success: the service works, the request was wrong.
func DefaultClassify(ctx context.Context, res *http.Response, err error) breaker.Outcome {
	if err == nil && res != nil && (res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests) {
		return breaker.Failure
	}
	return breaker.DefaultClassify(ctx, err)
}

// Transport is an http.RoundTripper that guards another. It is safe for concurrent use.
type Transport struct {
	base     http.RoundTripper
	cfg      Config
	timeout  time.Duration
	deadline time.Duration
	breakers *breaker.Registry
	maxKeys  int

	mu        sync.Mutex
	latencies map[string]*latencies // of Hedge
}

// NewTransport returns a Transport over base. A nil base is a clone of http.DefaultTransport that keeps more idle
// connections to a host.
func NewTransport(base http.RoundTripper, cfg Config) (*Transport, error) {
	if base == nil {
		base = newBase()
	}
	if cfg.MaxHosts < 0 {
		return nil, fmt.Errorf("breakerhttp: Config.MaxHosts is %d, want at least 0", cfg.MaxHosts)
	}
	if err := cfg.Hedge.setDefaults(); err != nil {
		return nil, err
	}
	if cfg.Breaker.Name == "" {
		cfg.Breaker.Name = "http"
	}
	if cfg.Classify == nil {
		cfg.Classify = DefaultClassify
	}
	if cfg.MaxRetryAfter == 0 {
		cfg.MaxRetryAfter = 30 * time.Second
	}
	cfg.Propagator = cmp.Or(cfg.Propagator, correlation.DefaultPropagator())
	t := &Transport{
		base: base, cfg: cfg, timeout: cfg.Breaker.Timeout, deadline: cfg.Breaker.Deadline,
		maxKeys: cmp.Or(cfg.MaxHosts, 1024), latencies: map[string]*latencies{},
	}
	if t.timeout == 0 {
		t.timeout = 10 * time.Second
	}
	inner := cfg.Breaker
	if inner.ProbeTimeout == 0 {
		inner.ProbeTimeout = max(30*time.Second, 2*t.timeout)
	}
	// Both would cancel the context on return, and so cut the body: they are kept here.
	inner.Timeout, inner.Deadline = -1, -1
	inner.Classify = classify
	worth := cfg.Breaker.Retry.If
	inner.Retry.If = func(err error) bool {
		var a *attemptError
		return errors.As(err, &a) && a.repeatable && (worth == nil || worth(a.error))
	}
	var err error
	t.breakers, err = breaker.NewRegistry(inner, cfg.MaxHosts)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func newBase() http.RoundTripper {
	def, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // the program has wrapped it, and knows better
		return http.DefaultTransport
	}
	tuned := def.Clone()
	tuned.MaxIdleConns = 512
	tuned.MaxIdleConnsPerHost = 64
	// A connection that is silent is pinged, and dropped when the ping is not answered: else every request would be sent
	// into a dead one.
	tuned.HTTP2 = &http.HTTP2Config{
		SendPingTimeout:  5 * time.Second,
		PingTimeout:      5 * time.Second,
		WriteByteTimeout: 10 * time.Second,
	}
	return tuned
}

// Breaker returns the breaker of a host without a key, "example.com", "example.com:8080" or "[::1]", without the port
// that the scheme implies.
func (t *Transport) Breaker(host string) *breaker.Breaker {
	return t.breakers.Get(strings.ToLower(host))
}

// BreakerOf returns the breaker of a request.
func (t *Transport) BreakerOf(req *http.Request) *breaker.Breaker { return t.breakers.Get(t.key(req)) }

// Wrap returns a copy of client, whose requests are guarded: for the clients of third-party SDKs. The transport that it
// has, which may sign requests or add tokens, becomes the base; its jar, redirects and timeout are kept. A client's
// Timeout is the caller's deadline for the breaker. nil is a client without any of these.
func Wrap(client *http.Client, cfg Config) (*http.Client, error) {
	if client == nil {
		client = new(http.Client)
	}
	tr, err := NewTransport(client.Transport, cfg)
	if err != nil {
		return nil, err
	}
	guarded := *client
	guarded.Transport = tr
	return &guarded, nil
}

// CloseIdleConnections closes the idle connections of the base transport.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.deadline <= 0 {
		return t.roundTrip(req.Context(), req)
	}
	ctx, cancel := context.WithTimeout(req.Context(), t.deadline)
	res, err := t.roundTrip(ctx, req)
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = releasing(res.Body, cancel)
	return res, nil
}

func (t *Transport) roundTrip(ctx context.Context, req *http.Request) (*http.Response, error) {
	key := t.key(req)
	b := t.breakers.Get(key)
	e := &exchange{t: t, req: req, repeatable: repeatable(req), guard: b, key: key}
	res, err := breaker.Do(ctx, b, e.attempt)
	spanevent.End(ctx, b.Name(), err)
	if e.attempts == 0 && req.Body != nil {
		_ = req.Body.Close()
	}
	if res == nil {
		return nil, plain(err)
	}
	if err != nil && ctx.Err() != nil { // its body could not be read
		_ = res.Body.Close()
		if !errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("breakerhttp: %w: %w", ctx.Err(), plain(err))
		}
		return nil, plain(err)
	}
	return res, nil // a response is the answer, whatever it meant to the breaker
}

// plain takes the wrapping that was only for the breaker off an error.
func plain(err error) error {
	if a, ok := err.(*attemptError); ok { //nolint:errorlint // only our own, outermost wrapping comes off
		return a.error
	}
	return err
}

// hostKey is the name of the breaker: the host, without the port that the scheme implies.
func hostKey(req *http.Request) string {
	host := strings.ToLower(req.URL.Host)
	switch req.URL.Scheme { // what an IPv6 address ends with stands before a ]
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// repeatable says whether sending req twice is as good as once, and possible.
func repeatable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != "" || req.Header.Get("X-Idempotency-Key") != ""
}
