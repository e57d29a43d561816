package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/breaker"
)

// Authenticator returns the identity that a bearer token stands for. An error that has a Challenge() string is a 401,
// and names its WWW-Authenticate header. A net.Error, such as context.DeadlineExceeded, and an error whose Temporary()
// bool is true say that the token cannot be verified now: 503. Every other one is a 401.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (subject string, roles []string, claims map[string]any, err error)
}

// Config says what a Gateway does. In every field 0 is the default and a negative value is off.
type Config struct {
	// Routes are the services behind the gateway. Reload replaces them.
	Routes []Route
	// Auth verifies tokens. It is required, unless Anonymous says that there are none.
	Auth Authenticator
	// Anonymous makes every route public. It excludes Auth.
	Anonymous bool
	// Claims are passed to the services: claim name to header name, such as {"email": "X-User-Email"}. The gateway owns
	// these headers: what a client sends in them is removed. A text is passed as it is, everything else as JSON, a
	// claim that is null not at all.
	Claims map[string]string
	// CORS answers browsers of other origins. Default: none is allowed, and headers of services pass as they are.
	CORS *CORS
	// RemoveHeaders are further headers that a client's request must not have, beside those that the gateway sets
	// itself and their relatives: X-User-ID, X-User-Roles, the headers of Claims, Forwarded, X-Forwarded-*,
	// X-Original-*, X-Real-IP, X-Client-IP, True-Client-IP and the like. X-HTTP-Method-Override is a candidate. All are
	// removed under every spelling that some server takes for the same name, from trailers too.
	RemoveHeaders []string
	// TrustedProxies are the networks whose X-Forwarded headers (-For, -Host, -Proto, -Port, -Prefix) are believed and
	// continued. The access log names the client that they name. Default: none.
	TrustedProxies []netip.Prefix
	// Limiter counts for the routes' RateLimit. Default: in memory, for this process alone.
	Limiter Limiter
	// LimitKeys are functions that RateLimit.Key names: what a request is counted by, such as the tenant of its host.
	// "": the client's address.
	LimitKeys map[string]func(*http.Request) string
	// Middleware are handlers that Route.Middleware names. They run around the proxy, after the caller was admitted:
	// Caller returns who it is. The path that the service gets is not that of the request that they pass on, and
	// headers that the gateway owns are removed from it.
	Middleware map[string]func(http.Handler) http.Handler
	// Registries find the instances of upstreams such as "dns+http://users:8000", by the word before the +. Default:
	// "dns" for DNS{} and "dnssrv" for DNS{SRV: true}; entries of these names replace them. Run must run.
	Registries map[string]Registry
	// FoldCase matches prefixes, hosts apart, and public paths in any case, for services that do so: without it
	// /users/ADMIN does not match a route /users/admin, and goes to /users. Paths are passed on as they were received.
	FoldCase bool
	// PublicDocuments lets all callers read /health/services and /openapi.json, which name all services and their
	// paths. Default: only callers that at least one route admits, by Roles. /health is always public.
	PublicDocuments bool
	// DocumentRoles are those of which a caller needs one to read /health/services and /openapi.json. Default: those of
	// the routes; none, if a route needs none.
	DocumentRoles []string
	// Fallback serves what matches no route. It asks for no token. Default: 404.
	Fallback http.Handler
	// UpstreamTLS is for https instances: an authority of one's own, a certificate to show. Default: the system's.
	UpstreamTLS *tls.Config
	// HealthInterval is how often Run checks the health of every instance. Default 10 s. Negative disables it.
	HealthInterval time.Duration
	// Title is the title of the merged OpenAPI document. Default "API".
	Title string

	// Logger logs every request. Default: slog.Default().
	Logger *slog.Logger
	// NoAccessLog leaves out the line for each request, where middleware around the gateway writes one. Default: false.
	NoAccessLog bool
	// PublicEdge is for gateways that untrusted clients call: a client's trace context becomes a link, not a parent, so
	// that clients do not decide what is sampled, and baggage is dropped. Where middleware around the gateway makes the
	// request's span, that decides.
	PublicEdge bool
	// TracerProvider makes a server span of every request, where there is none yet, and a client span of every attempt.
	// Default: the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider makes the instruments. Default: the global one.
	MeterProvider metric.MeterProvider
	// Propagator carries trace and correlation id. Default: W3C trace context and X-Correlation-ID.
	Propagator propagation.TextMapPropagator
}

// Route sends the paths below a prefix to a service. It is data, and has the names of its fields in lower case as JSON
// and in YAML. When several routes match a request, the most specific host wins, then the longest prefix, then a route
// with Methods, then the one with the most Headers, then the first.
type Route struct {
	// Name is the service's, for logs, metrics and /health/services. Default: Prefix without its slashes.
	Name string `json:"name,omitempty"`
	// Prefix is whole segments of the path: "/users" matches /users and /users/7, not /usersX.
	Prefix string `json:"prefix"`
	// Hosts are the values of Host that match, without a port: "shop.example", or "*.shop.example" for all names below
	// it. Default: all.
	Hosts []string `json:"hosts,omitempty"`
	// Methods are those that match; GET includes HEAD. Default: all.
	Methods []string `json:"methods,omitempty"`
	// Headers are those that a request must have, with the value, or "*" for any. Clients choose headers: this routes,
	// and protects nothing.
	Headers map[string]string `json:"headers,omitempty"`
	// Upstreams are the addresses of the instances: http://, https://, or h2c:// for gRPC and HTTP/2 without TLS. With
	// the name of a registry before it, such as "dns+http://users:8000" and "dnssrv+http://_http._tcp.users.example",
	// an upstream stands for all instances that Config.Registries finds, while Run runs.
	Upstreams []string `json:"upstreams"`
	// Weights are the shares of requests that each of Upstreams gets, as for a canary: [95, 5]. 0 sends nothing to it.
	// Default: all instances get the same.
	Weights []int `json:"weights,omitempty"`
	// PreserveHost sends the client's Host to the service. Default: the upstream's; X-Forwarded-Host has the client's.
	PreserveHost bool `json:"preserve_host,omitempty"`
	// KeepPrefix sends the path as it is. Default: the prefix is stripped.
	KeepPrefix bool `json:"keep_prefix,omitempty"`
	// Rewrite takes the place of the prefix: with "/api/v1", /users/7 arrives as /api/v1/7.
	Rewrite string `json:"rewrite,omitempty"`
	// EncodedSlashes lets %2F pass, byte for byte. Default: 400.
	EncodedSlashes bool `json:"encoded_slashes,omitempty"`

	// Roles are those of which a caller needs one. Default: a caller needs none, but a valid token.
	Roles []string `json:"roles,omitempty"`
	// Public are the requests that need no token, as "METHOD /path" or "/path" for all methods, after stripping. A *
	// segment matches one segment, a last ** any number, none too: "GET /health/**".
	Public []string `json:"public,omitempty"`
	// TokenCookie is the cookie that may have the token of a request without Authorization. Browsers send cookies with
	// requests that other sites cause (CSRF). Such requests get 403 by http.CrossOriginProtection, upgrades included,
	// unless CORS allows their origin with Credentials; those by GET, HEAD and OPTIONS do not, so services must change
	// nothing by them. Set the cookie HttpOnly, Secure and SameSite=Lax or Strict. Default: none.
	TokenCookie string `json:"token_cookie,omitempty"`
	// TokenProtocol begins the WebSocket subprotocol that may have the token, since browsers send no Authorization with
	// WebSockets: with "bearer." new WebSocket(url, ["app", "bearer."+token]). It is removed before the service sees
	// it; browsers want the service to choose another one, here "app". Default: none.
	TokenProtocol string `json:"token_protocol,omitempty"`
	// RateLimit bounds the requests of one client. Default: none.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`
	// CORS takes the place of Config.CORS.
	CORS *CORS `json:"cors,omitempty"`
	// Middleware are names in Config.Middleware, the outermost first.
	Middleware []string `json:"middleware,omitempty"`
	// Upgrade lets WebSocket through. Default: 400. Requests for other protocols, such as h2c, are answered as if they
	// had asked for none (RFC 9110, 7.8).
	Upgrade bool `json:"upgrade,omitempty"`
	// MaxBody bounds a request's body in bytes. Default 10 MiB. Routes for gRPC streams want -1.
	MaxBody int64 `json:"max_body,omitempty"`

	// Timeout is how long an instance may take to begin its answer, after the last part of the request's body was read:
	// then 504. A client that pauses so long in its body gets 408. Default 30 s.
	Timeout time.Duration `json:"timeout,omitempty"`
	// IdleTimeout bounds the pause between two parts of an answer's body. Default: off, for event streams are quiet.
	IdleTimeout time.Duration `json:"idle_timeout,omitempty"`
	// WriteTimeout bounds how long a client may not read an answer that is there: then its connection ends. Default 1
	// min. Negative disables it.
	WriteTimeout time.Duration `json:"write_timeout,omitempty"`
	// TotalTimeout bounds the whole exchange, the client's reading of the answer included. Default: off.
	TotalTimeout time.Duration `json:"total_timeout,omitempty"`
	// Attempts is how often a request is tried, the first included, as long as nothing of it can have been processed
	// twice: idempotent methods, or no connection. Default 2. See DialWait for refused connections.
	Attempts int `json:"attempts,omitempty"`
	// RetryBudget is the part of requests that may be retries. Default 0.1; negative: no bound.
	RetryBudget float64 `json:"retry_budget,omitempty"`
	// DialWait is how long after an instance began to refuse connections a request still waits for it, or for another
	// one, as while an only instance restarts. Nothing has been sent then, so requests of all methods wait, and
	// Attempts does not bound it. A request that finds no other instance and waits takes one retry out of RetryBudget,
	// however often it dials; without one, and later, requests get 502 at once. Default 2 s. Negative disables it.
	DialWait time.Duration `json:"dial_wait,omitempty"`
	// Balance is "power_of_two", "least_requests" or "round_robin". Default PowerOfTwo.
	Balance Balance `json:"balance,omitempty"`
	// SlowStart is how long the share of an instance that joins grows from a tenth to the whole. Default: off.
	SlowStart time.Duration `json:"slow_start,omitempty"`
	// Transport is how the instances are reached. Default: see Transport.
	Transport *Transport `json:"transport,omitempty"`
	// Breaker is the circuit breaker of each instance; only its trip rules, OpenFor, MaxOpenFor, Probes, ObserveOnly
	// and hooks are used. Default: opens after 5 failures in a row for 30 s.
	Breaker breaker.Config `json:"-"`
	// MaxEjection is the part of the instances that open breakers may take out of rotation. Default 0.5. When more are
	// open, the breakers are not followed and requests go to all instances, since refusing everything is worse than
	// trying: a rolling restart, or one bad endpoint, then takes no service away. So the only instance of a service is
	// never ejected. 1: no bound; a request gets 503 while all breakers are open.
	MaxEjection float64 `json:"max_ejection,omitempty"`
	// Health is the path of an instance's readiness check. Default "/health".
	Health string `json:"health,omitempty"`
	// UnhealthyAfter is how many health checks in a row must fail, by 5xx or no answer, before an instance gets no
	// requests while there are others. Default 2.
	UnhealthyAfter int `json:"unhealthy_after,omitempty"`
	// HealthyAfter is how many checks in a row must succeed before it gets requests again. Default 1.
	HealthyAfter int `json:"healthy_after,omitempty"`
	// OpenAPI is the path of the service's OpenAPI document. Default "/openapi.json"; "-" leaves it out.
	OpenAPI string `json:"openapi,omitempty"`
}

// RateLimit bounds requests. They are counted by the client's address, of IPv6 by the /64 network that it is in, unless
// one of BySubject, ByHeader and Key says otherwise and the request has it.
type RateLimit struct {
	// Rate is the requests a second.
	Rate float64 `json:"rate"`
	// Burst is how many may come at once. Default: Rate, at least 1.
	Burst int `json:"burst,omitempty"`
	// BySubject counts by the token's subject.
	BySubject bool `json:"by_subject,omitempty"`
	// ByHeader counts by the value of a header, such as X-API-Key. A client that invents values evades the limit: use a
	// header that a proxy in front sets, or that the service verifies.
	ByHeader string `json:"by_header,omitempty"`
	// Key counts by what the function of this name in Config.LimitKeys returns.
	Key string `json:"key,omitempty"`
	// Headers adds RateLimit and RateLimit-Policy to answers, as in draft-ietf-httpapi-ratelimit-headers-10. Default:
	// off; 429 has Retry-After in any case.
	Headers bool `json:"headers,omitempty"`
}

// CORS says which browsers may read answers.
type CORS struct {
	// Origins are the allowed ones, such as "https://shop.example"; "*" is all, without Credentials only.
	Origins []string `json:"origins"`
	// Methods are the allowed ones. Default GET, HEAD, POST, PUT, PATCH, DELETE.
	Methods []string `json:"methods,omitempty"`
	// Headers are the request headers allowed. Default Authorization, Content-Type, Idempotency-Key, X-Correlation-ID.
	Headers []string `json:"headers,omitempty"`
	// Expose are the answer's headers that scripts may read. Default X-Correlation-ID.
	Expose []string `json:"expose,omitempty"`
	// Credentials allows cookies.
	Credentials bool `json:"credentials,omitempty"`
	// MaxAge is how long a browser remembers. Default 10 min.
	MaxAge time.Duration `json:"max_age,omitempty"`
}

func (c *CORS) withDefaults() (*CORS, error) {
	if c == nil {
		return nil, nil
	}
	d := *c
	if len(d.Origins) == 0 || d.Credentials && slices.Contains(d.Origins, "*") {
		return nil, fmt.Errorf("CORS: want origins, and no * with Credentials")
	}
	for _, o := range d.Origins {
		u, err := url.Parse(o)
		if o != "*" && o != "null" &&
			(err != nil || u.Scheme == "" || u.Host == "" || o != u.Scheme+"://"+strings.ToLower(u.Host)) {
			return nil, fmt.Errorf("CORS: origin %q: want one as browsers send it, such as https://shop.example", o)
		}
	}
	fill := func(s *[]string, v ...string) {
		if len(*s) == 0 {
			*s = v
		}
	}
	fill(&d.Methods, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
	fill(&d.Headers, "Authorization", "Content-Type", "Idempotency-Key", "X-Correlation-ID")
	fill(&d.Expose, "X-Correlation-ID")
	if d.MaxAge == 0 {
		d.MaxAge = 10 * time.Minute
	}
	return &d, nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// parseUpstream parses an address, without regard to the registry before it.
func parseUpstream(s string) (*url.URL, error) {
	_, rest := splitUpstream(s)
	u, err := url.Parse(rest)
	if err != nil {
		return nil, fmt.Errorf("an upstream does not parse")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != schemeH2C,
		u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "", checkPath(u.EscapedPath(), false) != nil:
		return nil, fmt.Errorf("upstream %q: want http, https or h2c, a host, and no user or query", u.Redacted())
	}
	if port := u.Port(); u.Hostname() == "" || port != "" && !validPort(port) {
		return nil, fmt.Errorf("upstream %q: want a host, and a port from 1 to 65535", u.Redacted())
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(u.RawPath, "/")
	return u, nil
}
