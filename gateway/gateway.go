package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/sillar-go/sillar/internal/correlation"
)

// Gateway is an http.Handler that sends requests to services. It is safe for concurrent use.
type Gateway struct {
	cfg   Config
	cors  *CORS
	owned map[string]struct{}
	// traceFields are the headers of the propagator, and baggage where it is dropped.
	traceFields []string
	plain       *http.Transport // HTTP/1.1, and HTTP/2 over TLS
	h2c         *http.Transport
	telemetry   *telemetry
	health      cache[map[string]ServiceHealth]
	openapi     cache[[]byte]

	reload sync.Mutex
	table  atomic.Pointer[table]
}

// table is what a reload replaces.
type table struct {
	routes   []*route
	byPrefix map[string]*route
	byPlain  map[string]*route // by plainPath of the prefix
}

// New returns a gateway, or an error when the Config makes no sense or leaves out what is unsafe to leave out.
func New(cfg Config) (*Gateway, error) {
	if (cfg.Auth == nil) != cfg.Anonymous {
		return nil, errors.New("gateway: want Config.Auth, or Config.Anonymous to say that every route is public")
	}
	cors, err := cfg.CORS.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	standard := cfg.Propagator == nil
	if standard {
		cfg.Propagator = correlation.DefaultPropagator()
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	if cfg.Limiter == nil {
		cfg.Limiter = NewMemoryLimiter(0)
	}
	if cfg.HealthInterval == 0 {
		cfg.HealthInterval = 10 * time.Second
	}
	if cfg.Title == "" {
		cfg.Title = "API"
	}
	g := &Gateway{cfg: cfg, cors: cors, owned: map[string]struct{}{strings.ToLower(correlation.Header): {}}}
	for _, name := range owned {
		g.owned[name] = struct{}{}
	}
	for _, name := range cfg.RemoveHeaders {
		if len(name) < minOwned {
			return nil, fmt.Errorf("gateway: Config.RemoveHeaders: %q is shorter than %d characters", name, minOwned)
		}
		g.owned[folded(name)] = struct{}{}
	}
	for claim, name := range cfg.Claims {
		if _, twice := g.owned[folded(name)]; twice || !passes(name) {
			return nil, fmt.Errorf(
				"gateway: Claims: %q in header %q: want one that nothing else sets, of 7 or more characters", claim, name,
			)
		}
		g.owned[folded(name)] = struct{}{}
	}
	for _, p := range cfg.TrustedProxies {
		if !p.IsValid() {
			return nil, errors.New("gateway: TrustedProxies: a prefix that is not valid")
		}
	}
	for _, name := range cfg.Propagator.Fields() {
		g.traceFields = append(g.traceFields, http.CanonicalHeaderKey(name))
	}
	if cfg.PublicEdge {
		g.traceFields = append(g.traceFields, "Baggage")
	}
	if g.telemetry, err = newTelemetry(cfg, standard); err != nil {
		return nil, err
	}
	g.plain, g.h2c = newTransports(cfg.UpstreamTLS)
	t, err := g.newTable(cfg.Routes, nil)
	if err != nil {
		return nil, err
	}
	g.table.Store(t)
	return g, nil
}

// Must returns g or panics with err.
func Must(g *Gateway, err error) *Gateway {
	if err != nil {
		panic(err)
	}
	return g
}

// Reload replaces the routes. Requests at work keep the old ones; instances whose address and breaker stay keep what is
// known of them. With an error nothing has changed.
func (g *Gateway) Reload(routes []Route) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	old := g.table.Load()
	next, err := g.newTable(routes, old)
	if err != nil {
		return err
	}
	g.table.Store(next)
	g.health.forget()
	g.openapi.forget()
	kept := next.instances()
	for key := range old.instances() {
		if _, ok := kept[key]; !ok { // connections to who is gone would wait for their idle timeout
			g.CloseIdleConnections()
			break
		}
	}
	return nil
}

// CloseIdleConnections closes the connections to services that no request uses.
func (g *Gateway) CloseIdleConnections() {
	g.plain.CloseIdleConnections()
	g.h2c.CloseIdleConnections()
}

func (g *Gateway) newTable(routes []Route, old *table) (*table, error) {
	t := &table{byPrefix: map[string]*route{}, byPlain: map[string]*route{}}
	names := map[string]bool{}
	known := old.instances()
	for _, cfg := range routes {
		cfg, err := cfg.withDefaults()
		if err != nil {
			return nil, err
		}
		plain := plainPath(cfg.Prefix)
		if t.byPlain[plain] != nil {
			return nil, &RouteError{cfg.Prefix, "prefix", errors.New("another route has it")}
		}
		if names[cfg.Name] {
			return nil, &RouteError{cfg.Prefix, "name", fmt.Errorf("another route is %q", cfg.Name)}
		}
		if g.cfg.Anonymous && len(cfg.Roles) > 0 {
			return nil, &RouteError{cfg.Prefix, "roles", errors.New("with Config.Anonymous nobody has any")}
		}
		r, err := g.newRoute(cfg, known)
		if err != nil {
			return nil, err
		}
		names[cfg.Name] = true
		t.byPrefix[cfg.Prefix], t.byPlain[plain] = r, r
		t.routes = append(t.routes, r)
	}
	return t, nil
}

// instances returns those of all routes by what makes them the same.
func (t *table) instances() map[string]*instance {
	all := map[string]*instance{}
	if t != nil {
		for _, r := range t.routes {
			for _, i := range r.instances {
				all[i.key] = i
			}
		}
	}
	return all
}
