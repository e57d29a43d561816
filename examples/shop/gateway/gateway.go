// Package gateway is the API gateway of the shop. It forwards /{service}/{path} to each service, verifies tokens, and
// restricts operator endpoints to administrators.
package gateway

import (
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/gateway/gatewayyaml"
	"github.com/sillar-go/sillar/gateway/redislimit"
)

// open lists the requests of every service that need no token.
var open = []string{"GET /health", "GET /docs", "GET /openapi.json", "GET /openapi.yaml", "GET /schemas/**"}

// Routes returns the routes of the shop.
func Routes(p platform.Peers) []gateway.Route {
	routes := []gateway.Route{
		{Prefix: "/users", Upstreams: []string{p.Users}, Public: []string{"POST /token", "POST /api/v1/users",
			"GET /.well-known/jwks.json"}},
		{Prefix: "/products", Upstreams: []string{p.Products}, Public: []string{"GET /api/v1/products",
			"GET /api/v1/products/*"}},
		{Prefix: "/orders", Upstreams: []string{p.Orders}},
		{Prefix: "/inventory", Upstreams: []string{p.Inventory}},
		{Prefix: "/payments", Upstreams: []string{p.Payments}},
		{Prefix: "/notifications", Upstreams: []string{p.Notifications}},
	}
	for i := range routes {
		routes[i].Public = append(routes[i].Public, open...)
		routes[i].Timeout = 30 * time.Second
		routes[i].Transport = &gateway.Transport{IdleTimeout: idleTimeout}
		routes[i].RateLimit = &gateway.RateLimit{Rate: 200, Burst: 400}
	}
	return routes
}

// idleTimeout is less than the drain delay of services in production. A connection that is idle while a service drains
// ends here first, and one that is used gets Connection: close, so the service closes none into which a request is
// being sent.
const idleTimeout = 2 * time.Second

// New returns the gateway service.
func New(ctx context.Context, cfg platform.Config) (*platform.Service, error) {
	cfg.NoAPI, cfg.PublicEdge = true, true
	return platform.Make(ctx, cfg, build)
}

// watchEvery is the interval at which a routes file is checked for changes.
const watchEvery = time.Second

func build(_ context.Context, s *platform.Service) error {
	routes := Routes(s.Peers)
	var upstreams *tls.Config
	if s.ServiceTLS != nil {
		upstreams = s.ServiceTLS.Client()
		for i := range routes {
			routes[i].Transport.TLS = &gateway.TransportTLS{CAFile: s.ServiceTLS.CA()}
		}
	}
	if s.Routes != "" {
		var err error
		if routes, err = gatewayyaml.Load(s.Routes); err != nil {
			return err
		}
	}
	for i := range routes {
		if routes[i].Breaker.OpenFor == 0 {
			routes[i].Breaker.OpenFor = s.BreakerOpenFor
		}
	}
	limiter, err := limits(s)
	if err != nil {
		return err
	}
	gw, err := gateway.New(gateway.Config{Routes: routes, Limiter: limiter, UpstreamTLS: upstreams,
		Auth: s.Guard.Users(), Title: "Shop",
		Fallback: landing(), PublicEdge: true, PublicDocuments: true,
		Logger: s.Log, NoAccessLog: true, TracerProvider: s.Tel.TracerProvider, MeterProvider: s.Tel.MeterProvider,
		Propagator: s.Tel.Propagator})
	if err != nil {
		return err
	}
	s.Fallback = operatorsOnly(s.Guard.Users(), gw)
	s.Go("health", gw.Run)
	if s.Routes != "" {
		s.Go("routes", func(ctx context.Context) error { return gatewayyaml.Watch(ctx, s.Routes, watchEvery, gw, s.Log) })
	}
	s.OnClose("connections", func(context.Context) error { gw.CloseIdleConnections(); return nil })
	return nil
}

// limits returns where limits are counted: in the Redis that --db names, which several gateways share, or nil for in
// this process.
func limits(s *platform.Service) (gateway.Limiter, error) {
	if !strings.HasPrefix(s.DB, "redis://") && !strings.HasPrefix(s.DB, "rediss://") {
		return nil, nil
	}
	o, err := redis.ParseURL(s.DB)
	if err != nil {
		return nil, errors.New("the address of Redis cannot be read") // err quotes the password
	}
	o.ContextTimeoutEnabled = true
	client := redis.NewClient(o)
	s.OnClose("redis", func(context.Context) error { return client.Close() })
	return redislimit.New(client, redislimit.Config{Prefix: "shop:limit:", Logger: s.Log})
}

// operatorsOnly restricts metrics and readiness of the services to administrators: they reveal how the shop is built.
func operatorsOnly(v *authn.Verifier, next http.Handler) http.Handler {
	guarded := authn.Require(v, authn.AnyRole("admin"))(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if path == "metrics" || path == "ready" {
			guarded.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

//go:embed landing.html
var landingHTML string

// landing serves the page at /.
func landing() http.Handler {
	page := template.Must(template.New("landing").Parse(landingHTML))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" || r.Method != http.MethodGet && r.Method != http.MethodHead {
			platform.Fail(http.StatusNotFound, "not-found", "there is nothing at this address").Write(r.Context(), w)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		_ = page.Execute(w, struct {
			Host     string
			Services []string
		}{r.Host, []string{"users", "products", "orders", "inventory", "payments", "notifications"}})
	})
}
