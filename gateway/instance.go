package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// instance is one address of a service.
type instance struct {
	key       string
	url       *url.URL // where it is dialed
	host      string   // for its Host header; "": that of url
	transport *http.Transport
	breaker   *breaker.Breaker
	joined    time.Time // when it came into rotation

	busy         atomic.Int64
	unhealthy    atomic.Bool  // by the health checks of Run
	checks       checkStreak  // of these
	refusedSince atomic.Int64 // when it began to refuse connections, Unix nanoseconds; 0 while it accepts them
	left         atomic.Bool  // it is no longer in rotation

	answers atomic.Int64 // for metrics
	failed  atomic.Int64
	waited  atomic.Int64 // nanoseconds until answers began
}

// weighted is an instance in rotation: weights belong to the list of a route, not to the instance.
type weighted struct {
	*instance
	upstream int     // index into Route.Upstreams
	weight   float64 // among the instances of the upstream
	priority int     // the lowest is asked first
}

// breakerOf is the configuration of an instance's breaker, as far as it is data.
func (r Route) breakerOf(host string) breaker.Config {
	return breaker.Config{
		Name:        r.Name + "@" + host,
		Timeout:     -1,
		Failures:    r.Breaker.Failures,
		FailureRate: r.Breaker.FailureRate,
		SlowRate:    r.Breaker.SlowRate,
		SlowCall:    r.Breaker.SlowCall,
		Window:      r.Breaker.Window,
		MinCalls:    r.Breaker.MinCalls,
		OpenFor:     r.Breaker.OpenFor,
		MaxOpenFor:  r.Breaker.MaxOpenFor,
		Probes:      r.Breaker.Probes,
		ObserveOnly: r.Breaker.ObserveOnly,
	}
}

// newInstance returns the instance of upstream at address, or the one that is known already. An empty address is that
// of upstream itself.
func (g *Gateway) newInstance(
	cfg Route,
	upstream *url.URL,
	address string,
	known map[string]*instance,
) (*instance, error) {
	u := *upstream
	host := ""
	if address != "" {
		u.Host = address
		if name, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(name) != nil {
			host = upstream.Host // the service knows its name, not its address
		}
	}
	b := cfg.breakerOf(u.Host)
	if err := cfg.Transport.checkFiles(); err != nil {
		return nil, &RouteError{Prefix: cfg.Prefix, Field: "transport", Err: err}
	}
	rules, err := json.Marshal([]any{cfg.Name, u.String(), host, cfg.Transport, fmt.Sprintf("%+v", b)})
	if err != nil {
		return nil, &RouteError{Prefix: cfg.Prefix, Field: "transport", Err: err}
	}
	key := string(rules)
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
	i := &instance{key: key, url: &u, host: host, joined: time.Now()}
	serverName := ""
	if host != "" {
		serverName = upstream.Hostname()
	}
	i.transport = newTransport(cfg.Transport, g.cfg.UpstreamTLS, serverName, u.Scheme == schemeH2C)
	if u.Scheme == schemeH2C {
		u.Scheme = "http"
	}
	if i.breaker, err = breaker.New(b); err != nil {
		return nil, &RouteError{Prefix: cfg.Prefix, Field: "breaker", Err: err}
	}
	return i, nil
}

// leave takes the instance out of use: its idle connections close now, those of the last requests with them.
func (i *instance) leave() {
	i.left.Store(true)
	i.transport.CloseIdleConnections()
}

// closeAgain is after what time connections of HTTP/2 are idle whose last request has ended: not at once.
const closeAgain = time.Second

// release ends a request's use of the instance.
func (i *instance) release() {
	if i.busy.Add(-1) == 0 && i.left.Load() {
		i.transport.CloseIdleConnections()
		time.AfterFunc(closeAgain, i.transport.CloseIdleConnections)
	}
}

// refused notes whether the instance refused a connection, and returns since when it does.
func (i *instance) refused(now time.Time) time.Time {
	i.refusedSince.CompareAndSwap(0, now.UnixNano())
	return time.Unix(0, i.refusedSince.Load())
}

// accepted notes that the instance accepts connections.
func (i *instance) accepted() {
	if i.refusedSince.Load() != 0 {
		i.refusedSince.Store(0)
	}
}

// checkStreak counts health checks with one result in a row. Only one check of an instance runs at a time.
type checkStreak struct {
	failed bool
	length int
}

// add counts a check and returns how many in a row had its result.
func (s *checkStreak) add(failed bool) int {
	if s.failed != failed {
		s.failed, s.length = failed, 0
	}
	s.length++
	return s.length
}
