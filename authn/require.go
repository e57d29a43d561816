package authn

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/internal/problem"
)

// Requirement decides whether the user of a verified token may continue. It returns nil, or an error: one that matches
// ErrForbidden, such as ErrForbidden itself, becomes a 403, ErrUnavailable a 503, and every other error a 500. Programs
// write their own, for a tenant or a resource.
type Requirement func(ctx context.Context, u *User) error

func requirement(allowed func(u *User) bool) Requirement {
	return func(_ context.Context, u *User) error {
		if !allowed(u) {
			return forbidden
		}
		return nil
	}
}

// AnyRole admits users with at least one of the roles. Without roles it admits no user.
func AnyRole(roles ...string) Requirement {
	return requirement(func(u *User) bool { return u.HasAnyRole(roles...) })
}

// AllRoles admits users with every one of the roles. Without roles it admits no user.
func AllRoles(roles ...string) Requirement {
	return requirement(func(u *User) bool { return u.HasAllRoles(roles...) })
}

// AnyScope admits tokens with at least one of the scopes. Without scopes it admits no token.
func AnyScope(scopes ...string) Requirement {
	return requirement(func(u *User) bool { return u.HasAnyScope(scopes...) })
}

// AllScopes admits tokens with every one of the scopes. Without scopes it admits no token.
func AllScopes(scopes ...string) Requirement {
	return requirement(func(u *User) bool { return u.HasAllScopes(scopes...) })
}

// Require returns middleware that admits requests whose token v accepts and whose user meets every requirement, and
// puts the user into their context. Others get 401 or 403 with WWW-Authenticate (RFC 6750) and a problem document, or
// 503 when v cannot verify now. The token is taken from the Authorization header only. Identity headers of the request
// (StripIdentity) are removed: handlers find the user in the context.
func Require(v *Verifier, requirements ...Requirement) func(http.Handler) http.Handler {
	if v == nil {
		panic("authn: Require needs a Verifier")
	}
	return guard(func(r *http.Request) (*User, error) {
		return Check(r.Context(), v, r.Header.Values("Authorization"), requirements...)
	})
}

// Optional is Require for handlers that also serve callers without a token: those pass without a user in the context. A
// token that v refuses is answered with 401 nevertheless.
func Optional(v *Verifier) func(http.Handler) http.Handler {
	if v == nil {
		panic("authn: Optional needs a Verifier")
	}
	return guard(func(r *http.Request) (*User, error) {
		u, err := Check(r.Context(), v, r.Header.Values("Authorization"))
		if errors.Is(err, ErrNoToken) {
			return nil, nil
		}
		return u, err
	})
}

func guard(check func(r *http.Request) (*User, error)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, err := check(r)
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
					r.Header = r.Header.Clone() // outer middleware may still read the original
					StripIdentity(r.Header)
					break
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Check verifies the token in the values of an Authorization header and then the requirements, in their order. Require
// and package authngrpc use it; so can middleware for other frameworks, with WriteError for the answer.
func Check(ctx context.Context, v *Verifier, authorization []string, requirements ...Requirement) (*User, error) {
	token, err := Bearer(authorization)
	if err != nil {
		return nil, err
	}
	u, err := v.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	for _, required := range requirements {
		if err := required(ctx, u); err != nil {
			return nil, err
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

// WriteError answers a request with the status that an error of this package has for a client, and nothing of its text:
// 403 for ErrForbidden, 401 for every other error about the caller's credentials, both with a challenge (RFC 6750), 503
// with Retry-After for ErrUnavailable, and 500 for errors that are not of this package.
func WriteError(ctx context.Context, w http.ResponseWriter, err error) {
	challenge := ""
	if c, ok := errors.AsType[interface {
		error
		Challenge() string
	}](err); ok {
		challenge = c.Challenge()
	}
	switch {
	case errors.Is(err, ErrForbidden):
		w.Header().Set("WWW-Authenticate", cmp.Or(challenge, `Bearer error="insufficient_scope"`))
		problem.Write(ctx, w, http.StatusForbidden, "forbidden", "The caller may not do this.")
	case errors.Is(err, ErrNoToken):
		w.Header().Set("WWW-Authenticate", "Bearer")
		problem.Write(ctx, w, http.StatusUnauthorized, "unauthorized", "A valid bearer token is needed.")
	case errors.Is(err, ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		problem.Write(ctx, w, http.StatusServiceUnavailable, "authentication-unavailable", "Tokens cannot be verified now.")
	case challenge != "", isCredentialError(err):
		w.Header().Set("WWW-Authenticate", cmp.Or(challenge, `Bearer error="invalid_token"`))
		problem.Write(ctx, w, http.StatusUnauthorized, "unauthorized", "A valid bearer token is needed.")
	default:
		problem.Write(ctx, w, http.StatusInternalServerError, "internal", "")
	}
}

// isCredentialError reports whether the caller's token or password is at fault.
func isCredentialError(err error) bool {
	return slices.ContainsFunc(
		[]error{ErrToken, ErrExpired, ErrRevoked, ErrUnknownKey, ErrRefresh, ErrAPIKey,
			ErrPassword, ErrPasswordTooLong, ErrClient},
		func(sentinel error) bool { return errors.Is(err, sentinel) })
}

// StripIdentity removes the headers in which a gateway passes the caller to services: X-User-ID and all others that
// begin with X-User-. An edge removes them from every request from outside.
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
