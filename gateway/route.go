package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sillar-go/sillar/internal/correlation"
)

// route is a Route at work.
type route struct {
	Route
	g          *Gateway
	hosts      []string // in lower case
	patterns   []pattern
	cors       *CORS
	protection *http.CrossOriginProtection
	policy     string // value of RateLimit-Policy
	upstreams  []*url.URL
	sources    []*source // by index into Upstreams; nil for an address
	rotation   atomic.Pointer[rotation]
	turn       atomic.Uint64
	budget     budget
	handler    http.Handler // the middleware around the proxy
}

func (g *Gateway) newRoute(cfg Route, known map[string]*instance, sources map[string]*source) (*route, error) {
	r := &route{Route: cfg, g: g}
	fail := func(field string, err error) (*route, error) {
		return nil, &RouteError{Prefix: cfg.Prefix, Field: field, Err: err}
	}
	if g.cfg.Anonymous && len(cfg.Roles) > 0 {
		return fail("roles", errors.New("with Config.Anonymous callers have none"))
	}
	r.budget.share = int64(cfg.RetryBudget * 1000)
	r.budget.millis.Store(budgetStart)
	for _, h := range cfg.Hosts {
		r.hosts = append(r.hosts, strings.ToLower(h))
	}
	for _, s := range cfg.Public {
		p, err := parsePattern(s)
		if err != nil {
			return fail("public", err)
		}
		if g.cfg.FoldCase {
			for n := range p.segments {
				p.segments[n] = strings.ToLower(p.segments[n])
			}
		}
		r.patterns = append(r.patterns, p)
	}
	var err error
	if r.cors, err = cfg.CORS.withDefaults(); err != nil {
		return fail("cors", err)
	}
	if r.protection, err = crossOrigin(cmp.Or(r.cors, g.cors)); err != nil {
		return fail("cors", err)
	}
	if err := r.limitBy(); err != nil {
		return fail("rate_limit", err)
	}
	if err := r.findUpstreams(sources); err != nil {
		return fail("upstreams", err)
	}
	if err := r.fill(known); err != nil {
		return nil, err
	}
	r.handler = &httputil.ReverseProxy{
		Rewrite:        r.rewrite,
		Transport:      r,
		ErrorHandler:   g.failed,
		ModifyResponse: r.modify,
		BufferPool:     buffers{},
		ErrorLog:       slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
	}
	for _, name := range slices.Backward(cfg.Middleware) {
		wrap := g.cfg.Middleware[name]
		if wrap == nil {
			return fail("middleware", fmt.Errorf("there is no %q in Config.Middleware", name))
		}
		r.handler = wrap(r.handler)
	}
	return r, nil
}

// findUpstreams parses the upstreams, and finds the sources of those that a registry knows.
func (r *route) findUpstreams(known map[string]*source) error {
	for _, text := range r.Upstreams {
		u, err := parseUpstream(text)
		if err != nil {
			return err
		}
		var s *source
		if registry, _ := splitUpstream(text); registry != "" {
			if s, err = r.g.source(text, known); err != nil {
				return err
			}
		}
		r.upstreams, r.sources = append(r.upstreams, u), append(r.sources, s)
	}
	return nil
}

// fill makes the rotation of the route's instances: those of known that are still there, and new ones.
func (r *route) fill(known map[string]*instance) error {
	var all []weighted
	for n, u := range r.upstreams {
		if r.Weights != nil && r.Weights[n] == 0 {
			continue
		}
		found := []Instance{{Weight: 1}}
		if s := r.sources[n]; s != nil {
			if found = nil; s.latest.Load() != nil {
				found = *s.latest.Load()
			}
		}
		for _, f := range found {
			i, err := r.g.newInstance(r.Route, u, f.Address, known)
			if err != nil {
				return err
			}
			all = append(all, weighted{i, n, float64(f.Weight), f.Priority})
		}
	}
	r.rotation.Store(newRotation(all))
	return nil
}

// public reports whether a request needs no token: as its path is escaped, and as a service reads it that takes encoded
// slashes for slashes.
func (r *route) public(method, path string) bool {
	if r.g.cfg.FoldCase {
		path = strings.ToLower(path)
	}
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
	if out.Host = ""; r.PreserveHost {
		out.Host = pr.In.Host
	}
	out.Trailer = r.g.trailers(pr.In.Trailer)
	out.URL.RawPath = x.path
	out.URL.Path, _ = url.PathUnescape(x.path) // receivedPath has made it one that net/url keeps
	out.URL.RawQuery = pr.In.URL.RawQuery      // the proxy has dropped what it cannot parse; here nothing is read of it
	if r.TokenProtocol != "" {
		r.removeTokenProtocol(out.Header)
	}
	r.g.removeOwned(out.Header)
	r.g.setForwarded(out.Header, pr.In, r)
	r.g.setIdentity(out.Header, x.who)
	for _, name := range r.g.traceFields { // the context decides, even when it has none
		delete(out.Header, name)
	}
	r.g.telemetry.inject(ctx, out.Header)
	x.reply.ids[0] = correlation.From(ctx)
	out.Header[correlationKey] = x.reply.ids[0:1:1]
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

// withdraw takes one retry out; one that net/http made may leave a debt.
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
