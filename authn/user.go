package authn

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// User is a caller whose token has been verified. Nested values of Claims are shared between requests: do not change
// them.
type User struct {
	// ID is the subject (sub) of the token.
	ID string
	// Roles are the values of VerifierConfig.RolesClaim.
	Roles []string
	// Scopes are what the client may do for the user: the claim scope (RFC 9068), or scp.
	Scopes []string
	// ClientID is the OAuth 2.0 client that the token was issued to, empty when the token does not name one.
	ClientID string
	// Claims are all claims of the token, registered ones too. A number is a json.Number with the digits of the token;
	// ClaimsOf decodes claims into a type.
	Claims map[string]any
	// TokenID is the token's jti, empty when it has none.
	TokenID string
	// ExpiresAt is when the token ends.
	ExpiresAt time.Time

	payload string // of the token
}

// ClaimsOf decodes the claims of the user's token into T as encoding/json does, for example into a struct with the
// fields that a service reads. Numbers keep their digits where the type of the field can hold them.
func ClaimsOf[T any](u *User) (T, error) {
	var claims T
	payload := []byte(u.payload)
	if u.payload == "" { // not from a Verifier: in tests
		var err error
		if payload, err = json.Marshal(u.Claims); err != nil {
			return claims, fmt.Errorf("authn: encode the claims: %w", err)
		}
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return claims, fmt.Errorf("authn: decode the claims into %T: %w", claims, err)
	}
	return claims, nil
}

// HasAnyRole reports whether the user has at least one of the roles.
func (u *User) HasAnyRole(roles ...string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(u.Roles, r) })
}

// HasAllRoles reports whether the user has every one of the roles. It is false when no role is named.
func (u *User) HasAllRoles(roles ...string) bool { return hasAll(u.Roles, roles) }

// HasAnyScope reports whether the token carries at least one of the scopes.
func (u *User) HasAnyScope(scopes ...string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(u.Scopes, s) })
}

// HasAllScopes reports whether the token carries every one of the scopes. It is false when no scope is named.
func (u *User) HasAllScopes(scopes ...string) bool { return hasAll(u.Scopes, scopes) }

func hasAll(have, want []string) bool {
	missing := func(w string) bool { return !slices.Contains(have, w) }
	return len(want) > 0 && !slices.ContainsFunc(want, missing)
}

type userKey struct{}

// FromContext returns the user that Require, or an interceptor of authngrpc, has put into the context.
func FromContext(ctx context.Context) (*User, bool) {
	u, ok := ctx.Value(userKey{}).(*User)
	return u, ok && u != nil
}

// WithUser returns a context with the user: for middleware of other kinds, and for tests of handlers.
func WithUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}
