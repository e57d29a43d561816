package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	// ownedShapes are the lengths of owned names by their first letter.
	ownedShapes [256]uint64
	// traceFields are the headers of the propagator, and baggage where it is dropped.
	traceFields []string
	telemetry   *telemetry
	discovery   discovery
	health      cache[map[string]ServiceHealth]
	openapi     cache[[]byte]

	reload sync.Mutex
	table  atomic.Pointer[table]
}

// New returns a gateway, or an error when the Config makes no sense or leaves out what is unsafe to leave out.
func New(cfg Config) (*Gateway, error) {
	if (cfg.Auth == nil) != cfg.Anonymous {
		return nil, errors.New("gateway: want Config.Auth, or Config.Anonymous to say that every route is public")
	}
	cors, err := cfg.CORS.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	standard := cfg.setDefaults()
	g := &Gateway{
		cfg:       cfg,
		cors:      cors,
		discovery: discovery{changed: make(chan struct{}, 1)},
		owned:     map[string]struct{}{},
	}
	if err := g.ownHeaders(); err != nil {
		return nil, err
	}
	for _, p := range cfg.TrustedProxies {
		if !p.IsValid() || p.Addr().Is4In6() { // addresses of IPv4 are compared as such
			return nil, errors.New("gateway: TrustedProxies: a prefix that is not valid, or of IPv4 written as IPv6")
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
	t, err := g.newTable(cfg.Routes, nil)
	if err != nil {
		return nil, err
	}
	g.table.Store(t)
	g.discovery.want(t.sources)
	return g, nil
}

// setDefaults fills in what is not set. It reports whether the propagator is the standard one.
func (cfg *Config) setDefaults() (standard bool) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if standard = cfg.Propagator == nil; standard {
		cfg.Propagator = correlation.DefaultPropagator()
	}
	cfg.TracerProvider = cmp.Or(cfg.TracerProvider, otel.GetTracerProvider())
	cfg.MeterProvider = cmp.Or(cfg.MeterProvider, otel.GetMeterProvider())
	if cfg.Limiter == nil {
		cfg.Limiter = NewMemoryLimiter(0)
	}
	if cfg.HealthInterval == 0 {
		cfg.HealthInterval = 10 * time.Second
	}
	if cfg.Title == "" {
		cfg.Title = "API"
	}
	registries := map[string]Registry{"dns": DNS{}, "dnssrv": DNS{SRV: true}}
	maps.Copy(registries, cfg.Registries)
	cfg.Registries = registries
	return standard
}

// ownHeaders notes the headers that only the gateway sets.
func (g *Gateway) ownHeaders() error {
	g.own(strings.ToLower(correlation.Header))
	for _, name := range owned {
		g.own(name)
	}
	for _, prefix := range ownedPrefixes {
		g.ownedShapes[prefix[0]] = ^uint64(0)
	}
	for _, name := range g.cfg.RemoveHeaders {
		if len(name) < minOwned {
			return fmt.Errorf("gateway: Config.RemoveHeaders: %q is shorter than %d characters", name, minOwned)
		}
		g.own(folded(name))
	}
	for claim, name := range g.cfg.Claims {
		if _, twice := g.owned[folded(name)]; twice || !passes(name) {
			return fmt.Errorf(
				"gateway: Claims: %q in header %q: want one that nothing else sets, of 5 or more characters", claim, name,
			)
		}
		g.own(folded(name))
	}
	return nil
}

// Must returns g or panics with err.
func Must(g *Gateway, err error) *Gateway {
	if err != nil {
		panic(err)
	}
	return g
}

// Reload replaces the routes. Requests at work keep the old ones; instances whose address and breaker stay keep what is
// known of them, and those that leave finish their requests. With an error nothing has changed.
func (g *Gateway) Reload(routes []Route) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	old := g.table.Load()
	next, err := g.newTable(routes, old)
	if err != nil {
		return err
	}
	g.table.Store(next)
	g.discovery.want(next.sources)
	g.health.forget()
	g.openapi.forget()
	leave(old.instances(), next.instances())
	return nil
}

// CloseIdleConnections closes the connections to services that no request uses.
func (g *Gateway) CloseIdleConnections() {
	for _, i := range g.table.Load().instances() {
		i.transport.CloseIdleConnections()
	}
}
