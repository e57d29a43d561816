package authn

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/sillar-go/sillar/internal/problem"
)

// Option is a requirement, or a leniency, of Require.
type Option func(*requirement)

type requirement struct {
	checks   []func(*User) bool
	optional bool
}

// AnyRole lets in who has at least one of the roles.
func AnyRole(roles ...string) Option {
	return func(r *requirement) {
		r.checks = append(r.checks, func(u *User) bool { return u.HasAnyRole(roles...) })
	}
}

// AllRoles lets in who has every one of the roles.
func AllRoles(roles ...string) Option {
	return func(r *requirement) {
		r.checks = append(r.checks, func(u *User) bool { return u.HasAllRoles(roles...) })
	}
}

// Optional lets a request without a token pass, without a user. A bad token is refused nevertheless. It cannot be
// combined with roles: who needs a role needs a token.
func Optional() Option { return func(r *requirement) { r.optional = true } }

// Require lets requests pass that carry a token that v accepts, and puts the user into their context. Others get 401
// or 403 with WWW-Authenticate (RFC 6750) and a problem document, or 503 when v cannot tell. The token is taken from
// the Authorization header only. Identity headers of the request are removed: who calls is in the context.
func Require(v *Verifier, opts ...Option) func(http.Handler) http.Handler {
	if v == nil {
		panic("authn: Require needs a Verifier")
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, err := Check(r.Context(), v, r.Header.Values("Authorization"), opts...)
			if err != nil {
				WriteError(r.Context(), w, err)
				return
			}
			ctx := r.Context()
			if u != nil {
				ctx = WithUser(ctx, u)
			} else if _, there := FromContext(ctx); there {
				ctx = WithUser(ctx, nil)
			}
			r = r.WithContext(ctx)
			for name := range r.Header {
				if isIdentity(name) {
					r.Header = r.Header.Clone() // around us somebody may look at it yet
					StripIdentity(r.Header)
					break
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Check is what Require and authngrpc do: it verifies the token of the values of an Authorization header and the
// requirements. The user is nil without an error only under Optional.
func Check(ctx context.Context, v *Verifier, authorization []string, opts ...Option) (*User, error) {
	var need requirement
	for _, o := range opts {
		o(&need)
	}
	token, err := Bearer(authorization)
	if errors.Is(err, ErrNoToken) && need.optional && len(need.checks) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u, err := v.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	for _, allowed := range need.checks {
		if !allowed(u) {
			return nil, forbidden
		}
	}
	return u, nil
}

// Bearer returns the token in the values of an Authorization header. Without one, or with another scheme, it returns
// ErrNoToken; several values are refused.
func Bearer(values []string) (string, error) {
	if len(values) == 0 {
		return "", missing
	}
	if len(values) > 1 {
		return "", refuse("several Authorization headers")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", missing
	}
	token = strings.TrimLeft(token, " ")
	if token == "" {
		return "", missing
	}
	return token, nil
}

// WriteError answers a request with what an error of this package means to a client, and no more: 401 and 403 with a
// challenge, 503 when tokens cannot be verified now, else 500.
func WriteError(ctx context.Context, w http.ResponseWriter, err error) {
	if c, ok := errors.AsType[interface {
		error
		Challenge() string
	}](err); ok {
		w.Header().Set("WWW-Authenticate", c.Challenge())
		if errors.Is(err, ErrForbidden) {
			problem.Write(ctx, w, http.StatusForbidden, "forbidden", "The caller may not do this.")
			return
		}
		problem.Write(ctx, w, http.StatusUnauthorized, "unauthorized", "A valid bearer token is needed.")
		return
	}
	if errors.Is(err, ErrUnavailable) {
		w.Header().Set("Retry-After", "1")
		problem.Write(ctx, w, http.StatusServiceUnavailable, "authentication-unavailable", "Tokens cannot be verified now.")
		return
	}
	problem.Write(ctx, w, http.StatusInternalServerError, "internal", "")
}

// StripIdentity removes the headers in which a gateway tells services who calls: X-User-ID and all others that begin with
// X-User-. An edge does so with every request
// from outside.
func StripIdentity(h http.Header) {
	for name := range h {
		if isIdentity(name) {
			delete(h, name)
		}
	}
}

func isIdentity(name string) bool {
	const prefix = "X-User-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}
