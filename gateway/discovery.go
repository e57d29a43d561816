package gateway

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// Registry finds the instances of services: DNS is one; others may ask Consul, etcd or Kubernetes' API.
// Config.Registries gives it a name, and an upstream "name+http://service" the service to find.
type Registry interface {
	// Watch calls update with all instances of the service that upstream names, at once and after each change, until ctx
	// ends. Upstream has the scheme and the path that instances are called with, and a host that the registry understands.
	// After an update without instances requests get 503. When Watch returns before ctx ends, it is called again after a
	// pause, and the instances of the last update stay; so it is, without a pause, when an instance refuses connections.
	Watch(ctx context.Context, upstream *url.URL, update func([]Instance)) error
}

// Instance is what a Registry knows of one instance of a service.
type Instance struct {
	// Address is host:port. Where the host is an IP address, the Host header and the name in certificates are those of the
	// upstream.
	Address string
	// Weight is the share of the instance among those of its upstream. Default 1.
	Weight int
	// Priority makes the instance a backup of those with a lower one: it gets requests only while each of these is
	// unhealthy, has an open breaker or has failed the same request. Default 0, the first to be asked.
	Priority int
}

const (
	watchPause   = time.Second     // before Watch is called again
	lookAgainGap = time.Second     // between two looks because of refused connections
	firstWait    = 5 * time.Second // how long requests wait for the first instances of a service
)

// source is a discovered upstream of a table's routes. A reload keeps it.
type source struct {
	text     string
	upstream *url.URL
	registry Registry
	latest   atomic.Pointer[[]Instance] // nil before the first update
	ready    chan struct{}              // closed with the first update
	again    chan struct{}              // an instance has refused a connection
}

// discovery runs the watches of a gateway while Run does.
type discovery struct {
	changed chan struct{} // another set of sources is wanted

	mu      sync.Mutex
	sources map[string]*source // of the present table
}

// splitUpstream splits "dns+http://users:8000" into the name of a registry and the rest.
func splitUpstream(s string) (registry, rest string) {
	scheme, _, ok := strings.Cut(s, "://")
	if registry, _, found := strings.Cut(scheme, "+"); ok && found {
		return registry, s[len(registry)+1:]
	}
	return "", s
}

// source returns the one of known, or a new one.
func (g *Gateway) source(text string, known map[string]*source) (*source, error) {
	if s, ok := known[text]; ok {
		return s, nil
	}
	name, _ := splitUpstream(text)
	registry, ok := g.cfg.Registries[name]
	if !ok {
		return nil, fmt.Errorf("upstream %q: there is no registry %q", text, name)
	}
	u, err := parseUpstream(text)
	if err != nil {
		return nil, err
	}
	return &source{
		text: text, upstream: u, registry: registry, ready: make(chan struct{}), again: make(chan struct{}, 1),
	}, nil
}

// sourcesOf are those that routes use.
func sourcesOf(routes []*route) map[string]*source {
	all := map[string]*source{}
	for _, r := range routes {
		for _, s := range r.sources {
			if s != nil {
				all[s.text] = s
			}
		}
	}
	return all
}

// want makes the watches those of sources.
func (d *discovery) want(sources map[string]*source) {
	d.mu.Lock()
	d.sources = sources
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// watchAll runs a watch for each source until ctx ends.
func (g *Gateway) watchAll(ctx context.Context) {
	running := map[*source]context.CancelFunc{}
	var watches sync.WaitGroup
	defer watches.Wait()
	for {
		g.discovery.mu.Lock()
		wanted := maps.Clone(g.discovery.sources)
		g.discovery.mu.Unlock()
		for s, stop := range running {
			if wanted[s.text] != s {
				stop()
				delete(running, s)
			}
		}
		for _, s := range wanted {
			if running[s] == nil {
				watching, stop := context.WithCancel(ctx)
				running[s] = stop
				watches.Go(func() { g.watch(watching, s) })
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return
		case <-g.discovery.changed:
		}
	}
}

// watch keeps the instances of a source until ctx ends.
func (g *Gateway) watch(ctx context.Context, s *source) {
	logged := ""
	for ctx.Err() == nil {
		began := time.Now()
		watching, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() {
			ended <- s.registry.Watch(watching, s.upstream, func(found []Instance) { g.update(watching, s, found) })
		}()
		var err error
		pause := watchPause
		select {
		case err = <-ended:
		case <-s.again: // meanwhile the old watch goes on
			_ = backoff.Sleep(ctx, lookAgainGap-time.Since(began))
			stop()
			err, pause = <-ended, 0
		}
		stop()
		if err != nil && ctx.Err() == nil && err.Error() != logged { // once, not in each second of an outage
			logged = err.Error()
			g.cfg.Logger.WarnContext(
				ctx, "gateway: instances cannot be found, the last known ones stay", "upstream", s.text, "error", err,
			)
		}
		_ = backoff.Sleep(ctx, pause)
	}
}

// update replaces the instances of a source in all routes that use it.
func (g *Gateway) update(ctx context.Context, s *source, found []Instance) {
	valid := make([]Instance, 0, len(found))
	seen := map[string]bool{}
	for _, i := range found {
		if err := i.check(); err != nil {
			g.cfg.Logger.WarnContext(ctx, "gateway: an instance is left out", "upstream", s.text, "error", err)
			continue
		}
		if i.Weight = cmp.Or(i.Weight, 1); !seen[i.Address] {
			seen[i.Address] = true
			valid = append(valid, i)
		}
	}
	g.reload.Lock()
	defer g.reload.Unlock()
	if ctx.Err() != nil { // another watch has begun
		return
	}
	if old := s.latest.Swap(&valid); old == nil {
		defer close(s.ready)
	} else if slices.Equal(*old, valid) {
		return
	}
	t := g.table.Load()
	known := t.instances()
	for _, r := range t.routes {
		if !slices.Contains(r.sources, s) {
			continue
		}
		if err := r.fill(known); err != nil {
			g.cfg.Logger.ErrorContext(
				ctx, "gateway: the instances cannot be used, the last ones stay", "route", r.Name, "error", err,
			)
		}
	}
	leave(known, t.instances())
	g.health.forget()
	g.cfg.Logger.InfoContext(ctx, "gateway: the instances changed", "upstream", s.text, "instances", len(valid))
}

// leave takes the instances of before that are not in now out of use.
func leave(before, now map[string]*instance) {
	for key, i := range before {
		if now[key] == nil {
			i.leave()
		}
	}
}

func (i Instance) check() error {
	host, port, err := net.SplitHostPort(i.Address)
	if err != nil || host == "" || !validPort(port) || strings.ContainsAny(host, "/?#@ ") {
		return fmt.Errorf("address %q: want host:port", i.Address)
	}
	if i.Weight < 0 || i.Priority < 0 {
		return fmt.Errorf("address %q: weight %d or priority %d is negative", i.Address, i.Weight, i.Priority)
	}
	return nil
}

// inRotation returns the instances. For the first ones of a service it waits.
func (r *route) inRotation(ctx context.Context) (*rotation, error) {
	if rot := r.rotation.Load(); len(rot.all) > 0 {
		return rot, nil
	}
	wait := firstWait
	if r.Timeout > 0 {
		wait = min(wait, r.Timeout)
	}
	timeout := time.After(wait)
	for _, s := range r.sources {
		if s == nil {
			continue
		}
		select {
		case <-s.ready:
		case <-timeout:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if rot := r.rotation.Load(); len(rot.all) > 0 {
		return rot, nil
	}
	return nil, &noInstance{after: watchPause}
}

// lookAgain makes the registries look again, because an instance refused a connection.
func (r *route) lookAgain() {
	for _, s := range r.sources {
		if s != nil {
			select {
			case s.again <- struct{}{}:
			default:
			}
		}
	}
}
