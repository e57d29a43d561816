// Package gatewayyaml reads a gateway's routes from YAML, and reloads them when the file changes.
//
//	routes:
//	  - prefix: /users
//	    upstreams: [http://users:8000]
//	    public: [POST /token]
//	  - prefix: /orders
//	    upstreams: [http://orders-1:8002, http://orders-2:8002]
//	    roles: [customer]
//	    timeout: 10s
//	    rate_limit: {rate: 20, by_subject: true}
//	    breaker: {failures: 5, open_for: 30s}
//
// The keys are those of gateway.Route's JSON. A key that does not exist is an error: a misspelt "roles" must not open a
// route to everybody. Nothing is read from the environment and no other file is included.
package gatewayyaml

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

type document struct {
	Routes []route `yaml:"routes"`
}

type route struct {
	Name           string        `yaml:"name"`
	Prefix         string        `yaml:"prefix"`
	Upstreams      []string      `yaml:"upstreams"`
	KeepPrefix     bool          `yaml:"keep_prefix"`
	Rewrite        string        `yaml:"rewrite"`
	EncodedSlashes bool          `yaml:"encoded_slashes"`
	Roles          []string      `yaml:"roles"`
	Public         []string      `yaml:"public"`
	RateLimit      *rateLimit    `yaml:"rate_limit"`
	Upgrade        bool          `yaml:"upgrade"`
	MaxBody        int64         `yaml:"max_body"`
	Timeout        time.Duration `yaml:"timeout"`
	IdleTimeout    time.Duration `yaml:"idle_timeout"`
	TotalTimeout   time.Duration `yaml:"total_timeout"`
	Attempts       int           `yaml:"attempts"`
	RetryBudget    float64       `yaml:"retry_budget"`
	RoundRobin     bool          `yaml:"round_robin"`
	Health         string        `yaml:"health"`
	OpenAPI        string        `yaml:"openapi"`
	Breaker        trip          `yaml:"breaker"`
}

type rateLimit struct {
	Rate      float64 `yaml:"rate"`
	Burst     int     `yaml:"burst"`
	BySubject bool    `yaml:"by_subject"`
}

type trip struct {
	Failures    int           `yaml:"failures"`
	FailureRate float64       `yaml:"failure_rate"`
	Window      time.Duration `yaml:"window"`
	MinCalls    int           `yaml:"min_calls"`
	OpenFor     time.Duration `yaml:"open_for"`
	Probes      int           `yaml:"probes"`
	ObserveOnly bool          `yaml:"observe_only"`
}

// Parse reads routes. They are checked by gateway.New and Reload.
func Parse(text []byte) ([]gateway.Route, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("gatewayyaml: more than %d bytes", MaxSize)
	}
	var doc document
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&doc); err != nil {
		return nil, fmt.Errorf("gatewayyaml: %w", err)
	}
	if len(doc.Routes) == 0 {
		return nil, fmt.Errorf("gatewayyaml: no routes")
	}
	routes := make([]gateway.Route, len(doc.Routes))
	for n, r := range doc.Routes {
		routes[n] = gateway.Route{
			Name: r.Name, Prefix: r.Prefix, Upstreams: r.Upstreams, KeepPrefix: r.KeepPrefix, Rewrite: r.Rewrite,
			EncodedSlashes: r.EncodedSlashes, Roles: r.Roles, Public: r.Public, Upgrade: r.Upgrade, MaxBody: r.MaxBody,
			Timeout: r.Timeout, IdleTimeout: r.IdleTimeout, TotalTimeout: r.TotalTimeout, Attempts: r.Attempts,
			RetryBudget: r.RetryBudget, RoundRobin: r.RoundRobin, Health: r.Health, OpenAPI: r.OpenAPI,
			Breaker: breaker.Config{
				Failures: r.Breaker.Failures, FailureRate: r.Breaker.FailureRate, Window: r.Breaker.Window, MinCalls: r.Breaker.MinCalls,
				OpenFor: r.Breaker.OpenFor, Probes: r.Breaker.Probes, ObserveOnly: r.Breaker.ObserveOnly,
			},
		}
		if r.RateLimit != nil {
			routes[n].RateLimit = &gateway.RateLimit{Rate: r.RateLimit.Rate, Burst: r.RateLimit.Burst, BySubject: r.RateLimit.BySubject}
		}
	}
	return routes, nil
}

// Load reads routes from a file.
func Load(path string) ([]gateway.Route, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("gatewayyaml: %w", err)
	}
	return Parse(text)
}

// Watch reloads gw whenever the content of the file at path has changed, which it looks for at every interval, until ctx
// ends. A file that is not valid is logged, and what was there goes on serving.
func Watch(ctx context.Context, path string, interval time.Duration, gw *gateway.Gateway, logger *slog.Logger) error {
	if interval <= 0 {
		interval = 5 * time.Second
	}
	if logger == nil {
		logger = slog.Default()
	}
	last, _ := os.ReadFile(path) // what gw was made from
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		text, err := os.ReadFile(path)
		if err != nil || bytes.Equal(text, last) { // files that are replaced are missing for a moment
			continue
		}
		last = text
		routes, err := Parse(text)
		if err == nil {
			err = gw.Reload(routes)
		}
		if err != nil {
			logger.ErrorContext(ctx, "gatewayyaml: the routes are not valid, the old ones stay", "error", err)
			continue
		}
		logger.InfoContext(ctx, "gatewayyaml: routes reloaded", "routes", len(routes))
	}
}
