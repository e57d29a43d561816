package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/internal/httpcheck"
)

// RouteError says what is wrong with a route. New, Reload, ValidateRoutes and Route.Validate return it.
type RouteError struct {
	// Index is the place of the route in its list, from 0.
	Index int
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
// exclude each other, and a route may want what its gateway does not have: roles, a registry, files.
func (r Route) Validate() error {
	_, err := r.withDefaults()
	return err
}

// ValidateRoutes returns a *RouteError for the first thing that is wrong with each route by itself, or beside those
// before it, all joined.
func ValidateRoutes(routes []Route) error {
	_, errs := completed(routes)
	return errors.Join(errs...)
}

// completed fills what routes leave out.
func completed(routes []Route) (all []Route, errs []error) {
	rules, names := map[string]bool{}, map[string]bool{}
	for n, r := range routes {
		r, err := r.withDefaults()
		if err == nil {
			switch rule := r.rule(); {
			case rules[rule]:
				err = &RouteError{Prefix: r.Prefix, Field: "prefix", Err: errors.New("another route has it")}
			case names[r.Name]:
				err = &RouteError{Prefix: r.Prefix, Field: "name", Err: fmt.Errorf("another route is %q", r.Name)}
			default:
				rules[rule], names[r.Name] = true, true
			}
		}
		if err != nil {
			var wrong *RouteError
			if errors.As(err, &wrong) {
				wrong.Index, wrong.Prefix = n, routes[n].Prefix
			}
			errs = append(errs, err)
		}
		all = append(all, r)
	}
	return all, errs
}

// rule is what two routes must not have in common: with it they match the same requests.
func (r Route) rule() string {
	hosts, methods := slices.Clone(r.Hosts), slices.Clone(r.Methods)
	for n := range hosts {
		hosts[n] = strings.ToLower(hosts[n])
	}
	slices.Sort(hosts)
	slices.Sort(methods)
	headers := map[string]string{}
	for name, v := range r.Headers {
		headers[http.CanonicalHeaderKey(name)] = v
	}
	return fmt.Sprintf("%q %q %q %q", plainPath(r.Prefix), hosts, methods, headers)
}

// withDefaults checks a route and fills what it leaves out.
func (r Route) withDefaults() (Route, error) {
	prefix := r.Prefix
	if r.Prefix != "/" {
		r.Prefix = strings.TrimSuffix(r.Prefix, "/")
	}
	r.Name = cmp.Or(r.Name, strings.Trim(r.Prefix, "/"), "root")
	for _, check := range []func(*Route) (string, error){
		(*Route).checkMatch, (*Route).checkUpstreams, (*Route).checkCallers, (*Route).checkNumbers,
	} {
		if field, err := check(&r); err != nil {
			return r, &RouteError{Prefix: prefix, Field: field, Err: err}
		}
	}
	r.MaxBody = cmp.Or(r.MaxBody, 10<<20)
	r.Timeout = cmp.Or(r.Timeout, 30*time.Second)
	r.WriteTimeout = cmp.Or(r.WriteTimeout, time.Minute)
	r.Attempts = cmp.Or(r.Attempts, 2)
	r.RetryBudget = cmp.Or(r.RetryBudget, 0.1)
	r.DialWait = cmp.Or(r.DialWait, 2*time.Second)
	r.Balance = cmp.Or(r.Balance, PowerOfTwo)
	r.MaxEjection = cmp.Or(r.MaxEjection, 0.5)
	r.Health = cmp.Or(r.Health, "/health")
	r.UnhealthyAfter = cmp.Or(r.UnhealthyAfter, 2)
	r.HealthyAfter = cmp.Or(r.HealthyAfter, 1)
	r.OpenAPI = cmp.Or(r.OpenAPI, "/openapi.json")
	return r, nil
}

// checkMatch checks which requests the route is for, and the path that the service sees.
func (r *Route) checkMatch() (field string, err error) {
	if err := checkConfigured(r.Prefix); err != nil {
		return "prefix", err
	}
	if strings.ContainsAny(r.Prefix, "*{}") {
		return "prefix", errors.New("want no pattern: a prefix stands for itself and all paths below")
	}
	if r.Rewrite != "" && r.KeepPrefix {
		return "rewrite", errors.New("want none beside keep_prefix")
	}
	if err := checkConfigured(cmp.Or(r.Rewrite, "/")); err != nil {
		return "rewrite", err
	}
	for _, h := range r.Hosts {
		if !validHost(h) {
			return "hosts", fmt.Errorf("%q: want a name such as shop.example or *.shop.example, in ASCII, without a port", h)
		}
	}
	for _, m := range r.Methods {
		if m != strings.ToUpper(m) || !httpcheck.IsToken(m) || m == http.MethodConnect || m == http.MethodTrace {
			return "methods", fmt.Errorf("%q: want one in upper case, not CONNECT or TRACE", m)
		}
	}
	for name, v := range r.Headers {
		if !httpcheck.IsToken(name) || v == "" {
			return "headers", fmt.Errorf("%q: want the name of a header, and a value or *", name)
		}
	}
	return "", nil
}

func validHost(h string) bool {
	name := strings.TrimPrefix(h, "*.")
	u, err := url.Parse("http://" + name)
	return err == nil && name != "" && u.Host == name && u.Port() == "" && !strings.ContainsAny(name, "*@") &&
		!strings.ContainsFunc(name, func(r rune) bool { return r > '~' }) && // in Host it is in Punycode
		!strings.HasSuffix(name, ".") && !strings.HasSuffix(name, ":")
}

// checkUpstreams checks where the service is and how it is reached.
func (r *Route) checkUpstreams() (field string, err error) {
	if len(r.Upstreams) == 0 {
		return "upstreams", errors.New("there are none")
	}
	for _, u := range r.Upstreams {
		if _, err := parseUpstream(u); err != nil {
			return "upstreams", err
		}
	}
	if r.Weights != nil {
		total := 0
		for _, w := range r.Weights {
			if w < 0 || w > 1_000_000 {
				return "weights", errors.New("want 0 to 1000000")
			}
			total += w
		}
		if len(r.Weights) != len(r.Upstreams) || total == 0 {
			return "weights", errors.New("want one for each upstream, and one above 0")
		}
	}
	if err := r.Transport.validate(); err != nil {
		return "transport", err
	}
	switch r.Balance {
	case "", PowerOfTwo, LeastRequests, RoundRobin:
	default:
		return "balance", fmt.Errorf("%q: want power_of_two, least_requests or round_robin", r.Balance)
	}
	if _, err := breaker.New(r.breakerOf("")); err != nil {
		return "breaker", err
	}
	return "", nil
}

// checkCallers checks who may call.
func (r *Route) checkCallers() (field string, err error) {
	for _, p := range r.Public {
		if _, err := parsePattern(p); err != nil {
			return "public", err
		}
	}
	if r.TokenCookie != "" && !httpcheck.IsToken(r.TokenCookie) {
		return "token_cookie", errors.New("want the name of a cookie")
	}
	if r.TokenProtocol != "" && (!httpcheck.IsToken(r.TokenProtocol) || !r.Upgrade) {
		return "token_protocol", errors.New("want the beginning of a subprotocol, and upgrade")
	}
	if _, err := r.CORS.withDefaults(); err != nil {
		return "cors", err
	}
	l := r.RateLimit
	if l == nil {
		return "", nil
	}
	if !(l.Rate > 0) || l.Burst < 0 {
		return "rate_limit", errors.New("want a rate above 0, and no burst below")
	}
	if l.BySubject && (l.ByHeader != "" || l.Key != "") || l.ByHeader != "" && l.Key != "" {
		return "rate_limit", errors.New("want one of by_subject, by_header and key")
	}
	if l.ByHeader != "" && !httpcheck.IsToken(l.ByHeader) {
		return "rate_limit", errors.New("by_header: want the name of a header")
	}
	return "", nil
}

// checkNumbers checks bounds, thresholds and the paths of the gateway's own requests.
func (r *Route) checkNumbers() (field string, err error) {
	if !(r.MaxEjection >= 0 && r.MaxEjection <= 1) {
		return "max_ejection", errors.New("want 0 to 1")
	}
	if !(r.RetryBudget <= 1) {
		return "retry_budget", errors.New("want at most 1")
	}
	if r.UnhealthyAfter < 0 {
		return "unhealthy_after", errors.New("want 1 or more")
	}
	if r.HealthyAfter < 0 {
		return "healthy_after", errors.New("want 1 or more")
	}
	if r.Health != "" && (!strings.HasPrefix(r.Health, "/") || checkPath(r.Health, false) != nil) {
		return "health", errors.New("want a clean path that begins with /")
	}
	if doc := r.OpenAPI; doc != "" && doc != "-" && (!strings.HasPrefix(doc, "/") || checkPath(doc, false) != nil) {
		return "openapi", errors.New("want a clean path that begins with /, or -")
	}
	return "", nil
}
