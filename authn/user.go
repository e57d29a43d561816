package authn

import (
	"context"
	"slices"
	"time"
)

// User is a caller whose token has been verified. Nested values of Claims are shared between requests: do not change
// them.
type User struct {
	// ID is the token's subject.
	ID string
	// Roles are what the token says the user is.
	Roles []string
	// Claims are all claims of the token, registered ones too; numbers are float64.
	Claims map[string]any
	// TokenID is the token's jti, empty when it has none.
	TokenID string
	// ExpiresAt is when the token ends.
	ExpiresAt time.Time
}

// HasAnyRole reports whether the user has at least one of the roles.
func (u *User) HasAnyRole(roles ...string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(u.Roles, r) })
}

// HasAllRoles reports whether the user has every one of the roles.
func (u *User) HasAllRoles(roles ...string) bool {
	return !slices.ContainsFunc(roles, func(r string) bool { return !slices.Contains(u.Roles, r) })
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
