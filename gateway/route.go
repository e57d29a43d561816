package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/internal/correlation"
)

// route is a Route at work.
type route struct {
	Route
	g         *Gateway
	patterns  []pattern
	instances []*instance
	turn      atomic.Uint64
	budget    budget
	proxy     *httputil.ReverseProxy
}

// instance is one address of a service.
type instance struct {
	key     string
	url     *url.URL
	base    http.RoundTripper
	breaker *breaker.Breaker
	busy    atomic.Int64
	sick    atomic.Bool // by the last look of Run
}

func (g *Gateway) newRoute(cfg Route, known map[string]*instance) (*route, error) {
	r := &route{Route: cfg, g: g}
	r.budget.share = int64(cfg.RetryBudget * 1000)
	r.budget.millis.Store(budgetStart)
	for _, s := range cfg.Public {
		p, err := parsePattern(s)
		if err != nil {
			return nil, err
		}
		r.patterns = append(r.patterns, p)
	}
	for _, s := range cfg.Upstreams {
		i, err := g.newInstance(cfg, s, known)
		if err != nil {
			return nil, err
		}
		r.instances = append(r.instances, i)
	}
	r.proxy = &httputil.ReverseProxy{
		Rewrite:        r.rewrite,
		Transport:      r,
		ErrorHandler:   g.failed,
		ModifyResponse: r.modify,
		BufferPool:     buffers{},
		ErrorLog:       slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
	}
	return r, nil
}

// breakerOf is the configuration of an instance's breaker, as far as it is data.
func (r Route) breakerOf(host string) breaker.Config {
	return breaker.Config{
		Name: r.Name + "@" + host, Timeout: -1,
		Failures: r.Breaker.Failures, FailureRate: r.Breaker.FailureRate, SlowRate: r.Breaker.SlowRate, SlowCall: r.Breaker.SlowCall,
		Window: r.Breaker.Window, MinCalls: r.Breaker.MinCalls, OpenFor: r.Breaker.OpenFor, MaxOpenFor: r.Breaker.MaxOpenFor,
		Probes:      r.Breaker.Probes,
		ObserveOnly: r.Breaker.ObserveOnly,
	}
}

func (g *Gateway) newInstance(cfg Route, upstream string, known map[string]*instance) (*instance, error) {
	u, err := parseUpstream(upstream)
	if err != nil {
		return nil, err
	}
	b := cfg.breakerOf(u.Host)
	key := fmt.Sprintf("%s %s %+v", cfg.Name, u, b)
	if i, ok := known[key]; ok {
		return i, nil
	}
	b.OnStateChange = cfg.Breaker.OnStateChange
	b.OnCall = cfg.Breaker.OnCall
	b.Classify = func(_ context.Context, err error) breaker.Outcome {
		switch {
		case err == nil:
			return breaker.Success
		case errors.Is(err, errNoVerdict):
			return breaker.Ignore
		}
		return breaker.Failure
	}
	i := &instance{key: key, url: u, base: g.plain}
	if u.Scheme == "h2c" {
		u.Scheme, i.base = "http", g.h2c
	}
	if i.breaker, err = breaker.New(b); err != nil {
		return nil, &RouteError{cfg.Prefix, "breaker", err}
	}
	return i, nil
}

// public says whether a request needs no token: as its path is escaped, and as a service reads it that takes encoded
// slashes for slashes.
func (r *route) public(method, path string) bool {
	matches := func(path string) bool {
		return slices.ContainsFunc(r.patterns, func(p pattern) bool { return p.match(method, path) })
	}
	return matches(path) && (!r.EncodedSlashes || matches(slashes.Replace(path)))
}

var slashes = strings.NewReplacer("%2F", "/", "%2f", "/")

// rewrite makes the request that the service gets. The address is set when an instance is picked.
func (r *route) rewrite(pr *httputil.ProxyRequest) {
	out, ctx := pr.Out, pr.Out.Context()
	x := exchangeOf(ctx)
	out.Host = ""
	out.Trailer = r.g.trailers(pr.In.Trailer)
	out.URL.RawPath = x.path
	out.URL.Path, _ = url.PathUnescape(x.path) // receivedPath has made it one that net/url keeps
	out.URL.RawQuery = pr.In.URL.RawQuery      // the proxy has dropped what it cannot parse; here nothing is read of it
	r.g.removeOwned(out.Header)
	r.g.setForwarded(out.Header, pr.In, r)
	r.g.setIdentity(out.Header, x.who)
	for _, name := range r.g.traceFields { // what the context says counts, and be it nothing
		delete(out.Header, name)
	}
	r.g.telemetry.inject(ctx, out.Header)
	out.Header[correlationKey] = []string{correlation.From(ctx)}
	if out.Body != nil {
		x.body.rc, x.body.trailer = out.Body, pr.In.Trailer
	}
}

// modify completes an upgrade, whose header does not pass through reply.
func (r *route) modify(res *http.Response) error {
	if res.StatusCode == http.StatusSwitchingProtocols {
		res.Header.Set(correlation.Header, correlation.From(res.Request.Context()))
	}
	return nil
}

// noInstance says that no instance may be tried.
type noInstance struct{ after time.Duration }

func (e *noInstance) Error() string { return "gateway: no instance may be tried" }

// pick chooses an instance whose breaker lets a call through, one that was not tried before it tries others again.
func (r *route) pick(ctx context.Context, tried []*instance) (*instance, func(error), error) {
	var space [16]*instance
	for _, again := range []bool{false, true} {
		fit := space[:0]
		for _, wantSick := range []bool{false, true} { // when all are sick, the look may be wrong
			for _, i := range r.instances {
				if i.sick.Load() == wantSick && slices.Contains(tried, i) == again {
					fit = append(fit, i)
				}
			}
			for len(fit) > 0 {
				n := r.choose(fit)
				i := fit[n]
				done, err := i.breaker.Allow(ctx)
				if err == nil {
					return i, done, nil
				}
				if !breaker.IsRejection(err) {
					return nil, nil, err
				}
				fit[n] = fit[len(fit)-1]
				fit = fit[:len(fit)-1]
			}
		}
	}
	if r.panicking() {
		return r.pickAny(tried)
	}
	after := time.Duration(-1)
	for _, i := range r.instances {
		if d := i.breaker.RetryAfter(); after < 0 || d < after {
			after = d
		}
	}
	return nil, nil, &noInstance{after}
}

// panicking reports whether the breakers of more instances are open than may be ejected.
func (r *route) panicking() bool {
	if r.MaxEjection >= 1 {
		return false
	}
	open := 0
	for _, i := range r.instances {
		if i.breaker.State() == breaker.Open {
			open++
		}
	}
	return float64(open) > r.MaxEjection*float64(len(r.instances))
}

// pickAny chooses an instance without regard to breakers, one that was not tried where there is one. What it answers
// does not count, but an answer that is no failure lets its breaker probe at once.
func (r *route) pickAny(tried []*instance) (*instance, func(error), error) {
	fit := make([]*instance, 0, len(r.instances))
	for _, i := range r.instances {
		if !slices.Contains(tried, i) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		fit = append(fit, r.instances...)
	}
	i := fit[r.choose(fit)]
	return i, func(err error) {
		if err == nil {
			i.breaker.HalfOpen()
		}
	}, nil
}

// choose takes the next one, or the less busy of two.
func (r *route) choose(fit []*instance) int {
	n := len(fit)
	if n == 1 {
		return 0
	}
	if r.RoundRobin {
		return int(r.turn.Add(1) % uint64(n))
	}
	a, b := rand.IntN(n), rand.IntN(n-1)
	if b >= a {
		b++
	}
	if fit[b].busy.Load() < fit[a].busy.Load() {
		return b
	}
	return a
}

// budget lets retries be a part of the requests.
type budget struct {
	share  int64
	millis atomic.Int64
}

const (
	budgetStart = 10_000
	budgetMax   = 100_000
)

func (b *budget) deposit() {
	if b.millis.Load() < budgetMax {
		b.millis.Add(b.share)
	}
}

// withdraw takes one retry out; a retry that somebody else made may leave a debt.
func (b *budget) withdraw(made bool) bool {
	if b.share < 0 {
		return true
	}
	if b.millis.Add(-1000) < 0 && !made {
		b.millis.Add(1000)
		return false
	}
	return true
}

// buffers lets proxies share what they copy with.
type buffers struct{}

var bufferPool = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (buffers) Get() []byte  { return bufferPool.Get().(*[32 << 10]byte)[:] }
func (buffers) Put(b []byte) { bufferPool.Put((*[32 << 10]byte)(b)) }

func newTransports(t *tls.Config) (plain, h2c *http.Transport) {
	plain = &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // what the service compressed passes as it is
		MaxIdleConns:           2048,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		TLSClientConfig:        t.Clone(),
		TLSHandshakeTimeout:    5 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		// A connection that is silent is pinged, and dropped when the ping is not answered: else every request would be sent
		// into a dead one.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  5 * time.Second,
			PingTimeout:      5 * time.Second,
			WriteByteTimeout: 10 * time.Second,
		},
	}
	h2c = plain.Clone()
	h2c.Protocols = new(http.Protocols)
	h2c.Protocols.SetUnencryptedHTTP2(true)
	return plain, h2c
}
