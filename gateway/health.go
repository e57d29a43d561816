package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/correlation"
)

const (
	checkTimeout  = 2 * time.Second
	healthFresh   = 2 * time.Second
	openAPIFresh  = time.Minute
	maxDocument   = 4 << 20
	pathHealth    = "/health"
	pathServices  = "/health/services"
	pathOpenAPI   = "/openapi.json"
	statusUp      = "up"
	statusDown    = "down"
	statusPartial = "degraded"
)

// ServiceHealth is what /health/services says of one service.
type ServiceHealth struct {
	// Status is "up", "degraded" when some of its instances are down, or "down".
	Status string `json:"status"`
	// StatusCode is the HTTP status of the last instance that answered, 0 when none did.
	StatusCode int `json:"status_code,omitempty"`
	// LatencyMS is how long the slowest instance took, in milliseconds.
	LatencyMS float64 `json:"latency_ms"`
	// Instances and Up count them.
	Instances int `json:"instances"`
	Up        int `json:"up"`
}

// serveOwn answers requests for the gateway itself, and reports whether the request was one.
func (g *Gateway) serveOwn(ctx context.Context, w *reply, r *http.Request) bool {
	switch r.URL.Path {
	case pathHealth, pathServices, pathOpenAPI:
	default:
		return false
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || len(g.table.Load().byPrefix[r.URL.Path]) > 0 {
		return false
	}
	r.Pattern = r.URL.Path
	if r.URL.Path != pathHealth && !g.admitToDocuments(ctx, w, r) {
		return true
	}
	doc, err := g.document(ctx, r.URL.Path)
	if err != nil {
		w.disconnected()
		return true
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(doc)
	}
	return true
}

// admitToDocuments reports whether the caller may read what names the services, and answers when it may not.
func (g *Gateway) admitToDocuments(ctx context.Context, w *reply, r *http.Request) bool {
	if g.cfg.Anonymous || g.cfg.PublicDocuments {
		return true
	}
	roles := g.cfg.DocumentRoles
	if roles == nil {
		roles = g.table.Load().roles
	}
	return g.verify(ctx, w, bearer(r.Header), roles) != nil
}

// document is what is at one of the gateway's paths. The error is that the client has disconnected.
func (g *Gateway) document(ctx context.Context, path string) ([]byte, error) {
	switch path {
	case pathServices:
		all, err := g.Services(ctx)
		if err != nil {
			return nil, err
		}
		return json.Marshal(all)
	case pathOpenAPI:
		return g.openapi.get(ctx, openAPIFresh, g.mergeOpenAPI)
	}
	return []byte(`{"status":"ok"}`), nil
}

// Services looks at all instances at once, or returns what a look within the last two seconds saw.
func (g *Gateway) Services(ctx context.Context) (map[string]ServiceHealth, error) {
	return g.health.get(ctx, healthFresh, func(ctx context.Context) map[string]ServiceHealth {
		var mu sync.Mutex
		var looks sync.WaitGroup
		all := map[string]ServiceHealth{}
		for _, r := range g.table.Load().routes {
			for _, i := range r.rotation.Load().all {
				looks.Go(func() {
					start := time.Now()
					status := g.check(ctx, r, i.instance)
					took := float64(time.Since(start).Microseconds()) / 1000
					mu.Lock()
					defer mu.Unlock()
					h := all[r.Name]
					h.Instances++
					if status >= 200 && status < 300 {
						h.Up++
					}
					if status != 0 {
						h.StatusCode = status
					}
					h.LatencyMS = max(h.LatencyMS, took)
					all[r.Name] = h
				})
			}
		}
		looks.Wait()
		for name, h := range all {
			switch h.Status = statusPartial; h.Up {
			case 0:
				h.Status = statusDown
			case h.Instances:
				h.Status = statusUp
			}
			all[name] = h
		}
		return all
	})
}

// Run checks the health of every instance each Config.HealthInterval, keeps the instances of upstreams that a registry
// finds, and measures instances, until ctx ends. An unhealthy instance gets requests only when all are. Without Run,
// only the breakers say which instances to avoid, and upstreams of registries have no instances.
func (g *Gateway) Run(ctx context.Context) error {
	measuring, err := g.measureInstances()
	if err != nil {
		return err
	}
	defer func() { _ = measuring.Unregister() }()
	var watches sync.WaitGroup
	watches.Go(func() { g.watchAll(ctx) })
	defer watches.Wait()
	if g.cfg.HealthInterval < 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(g.cfg.HealthInterval)
	defer tick.Stop()
	for {
		g.checkAll(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// checkAll checks all instances at once.
func (g *Gateway) checkAll(ctx context.Context) {
	var checks sync.WaitGroup
	for _, r := range g.table.Load().routes {
		for _, i := range r.rotation.Load().all {
			checks.Go(func() {
				status := g.check(ctx, r, i.instance)
				if ctx.Err() == nil {
					// A service without such a path is healthy: only no answer and 5xx are bad signs.
					g.checked(ctx, r, i.instance, status == 0 || status >= 500)
				}
			})
		}
	}
	checks.Wait()
}

// checked notes the result of a health check.
func (g *Gateway) checked(ctx context.Context, r *route, i *instance, failed bool) {
	enough := r.HealthyAfter
	if failed {
		enough = r.UnhealthyAfter
	} else {
		i.breaker.HalfOpen() // what it learns from its next request is worth more than its time
	}
	if i.checks.add(failed) < enough || i.unhealthy.Swap(failed) == failed {
		return
	}
	g.cfg.Logger.WarnContext(ctx, "gateway: an instance changed", "route", r.Name, "instance", i.url.Host, "down", failed)
}

// check asks an instance how it is, and returns the HTTP status, 0 for none.
func (g *Gateway) check(ctx context.Context, r *route, i *instance) int {
	_, status := g.fetch(ctx, i, r.Health, 64<<10)
	return status
}

func (g *Gateway) fetch(ctx context.Context, i *instance, path string, limit int64) ([]byte, int) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url.String()+path, nil)
	if err != nil {
		return nil, 0
	}
	req.Host = i.host
	req.Header.Set("Accept", "application/json")
	ctx, _ = correlation.Ensure(ctx)
	g.cfg.Propagator.Inject(ctx, propagation.HeaderCarrier(req.Header))
	res, err := i.transport.RoundTrip(req)
	if err != nil {
		return nil, 0
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, limit))
	if err != nil {
		return nil, 0
	}
	return text, res.StatusCode
}

// cache holds the last value for a while, and lets one caller at a time renew it.
type cache[T any] struct {
	once  sync.Once
	turn  chan struct{}
	mu    sync.Mutex
	value T
	until time.Time
	epoch int // how often it was forgotten
}

func (c *cache[T]) get(ctx context.Context, fresh time.Duration, renew func(context.Context) T) (T, error) {
	c.once.Do(func() { c.turn = make(chan struct{}, 1) })
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
	defer func() { <-c.turn }()
	c.mu.Lock()
	v, until, epoch := c.value, c.until, c.epoch
	c.mu.Unlock()
	if time.Now().Before(until) {
		return v, nil
	}
	v = renew(context.WithoutCancel(ctx)) // the next caller wants it too
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch == epoch { // else it is of the routes before a reload
		c.value, c.until = v, time.Now().Add(fresh)
	}
	return v, nil
}

// forget makes the next caller renew the value.
func (c *cache[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
	c.epoch++
}
