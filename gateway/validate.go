package gateway

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// RouteError says what is wrong with a route. New, Reload and Route.Validate return it.
type RouteError struct {
	// Prefix is the route's.
	Prefix string
	// Field is the name of the field that is wrong, as in JSON: "upstreams".
	Field string
	// Err says what is wrong with it.
	Err error
}

// Error implements error.
func (e *RouteError) Error() string {
	return fmt.Sprintf("gateway: route %q: %s: %v", e.Prefix, e.Field, e.Err)
}

// Unwrap returns Err.
func (e *RouteError) Unwrap() error { return e.Err }

// Validate returns a *RouteError for the first thing that is wrong with the route by itself. Two routes may still
// exclude each other, and a route may want roles of a gateway that has none.
func (r Route) Validate() error {
	r, err := r.withDefaults()
	if err != nil {
		return err
	}
	if _, err := breaker.New(r.breakerOf("")); err != nil {
		return &RouteError{r.Prefix, "breaker", err}
	}
	return nil
}

// withDefaults checks a route and fills what it leaves out.
func (r Route) withDefaults() (Route, error) {
	prefix := r.Prefix
	bad := func(field string, err error) (Route, error) { return r, &RouteError{prefix, field, err} }
	if r.Prefix != "/" {
		r.Prefix = strings.TrimSuffix(r.Prefix, "/")
	}
	if !strings.HasPrefix(r.Prefix, "/") || checkPath(r.Prefix, false) != nil {
		return bad("prefix", errors.New("want a clean path that begins with /"))
	}
	if strings.ContainsAny(r.Prefix, "*{}") {
		return bad("prefix", errors.New("want no pattern: a prefix stands for itself and all paths below"))
	}
	if r.Rewrite != "" && (!strings.HasPrefix(r.Rewrite, "/") || checkPath(r.Rewrite, false) != nil || r.KeepPrefix) {
		return bad("rewrite", errors.New("want a clean path that begins with /, and no keep_prefix"))
	}
	if r.Name == "" {
		r.Name = strings.Trim(r.Prefix, "/")
	}
	if r.Name == "" {
		r.Name = "root"
	}
	if len(r.Upstreams) == 0 {
		return bad("upstreams", errors.New("there are none"))
	}
	for _, u := range r.Upstreams {
		if _, err := parseUpstream(u); err != nil {
			return bad("upstreams", err)
		}
	}
	if l := r.RateLimit; l != nil && (!(l.Rate > 0) || l.Burst < 0) {
		return bad("rate_limit", errors.New("want a rate above 0, and no burst below"))
	}
	if !(r.MaxEjection >= 0 && r.MaxEjection <= 1) {
		return bad("max_ejection", errors.New("want 0 to 1"))
	}
	if !(r.RetryBudget <= 1) {
		return bad("retry_budget", errors.New("want at most 1"))
	}
	for _, path := range []struct{ field, value string }{{"health", r.Health}, {"openapi", strings.TrimPrefix(r.OpenAPI, "-")}} {
		if path.value != "" && (!strings.HasPrefix(path.value, "/") || checkPath(path.value, false) != nil) {
			return bad(path.field, errors.New("want a clean path that begins with /"))
		}
	}
	for _, p := range r.Public {
		if _, err := parsePattern(p); err != nil {
			return bad("public", err)
		}
	}
	if r.MaxBody == 0 {
		r.MaxBody = 10 << 20
	}
	if r.Timeout == 0 {
		r.Timeout = 30 * time.Second
	}
	if r.Attempts == 0 {
		r.Attempts = 2
	}
	if r.WriteTimeout == 0 {
		r.WriteTimeout = time.Minute
	}
	if r.MaxEjection == 0 {
		r.MaxEjection = 0.5
	}
	if r.RetryBudget == 0 {
		r.RetryBudget = 0.1
	}
	if r.Health == "" {
		r.Health = "/health"
	}
	if r.OpenAPI == "" {
		r.OpenAPI = "/openapi.json"
	}
	return r, nil
}
