package authn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// RefreshToken is what a store keeps of a refresh token: its hash, never the token.
type RefreshToken struct {
	// Hash is the SHA-256 of the refresh token, in hexadecimal. It is unique.
	Hash string
	// Family is common to all refresh tokens that descend from one login.
	Family string
	// Subject is the user, and the client, that the token was issued to.
	Subject Subject
	// CreatedAt is when this token was made.
	CreatedAt time.Time
	// ExpiresAt is when this token ends.
	ExpiresAt time.Time
	// FamilyEndsAt is when the family ends, however often it is refreshed.
	FamilyEndsAt time.Time
	// UsedAt is when the token was first exchanged for another; zero until then.
	UsedAt time.Time
}

// Rotation asks a TokenStore to exchange a refresh token for the next one.
type Rotation struct {
	// Old is the hash of the token that is presented.
	Old string
	// Next is the token that takes its place, complete.
	Next RefreshToken
	// Now is the caller's time, for expiry and for Grace.
	Now time.Time
	// Grace is how long after its first use Old may be used again: for browser tabs that refresh at the same time, and
	// for answers that were lost. 0: the first exchange in the order of the store is the only one, whatever the clocks of
	// the callers say. A positive Grace is measured between the clocks of the callers.
	Grace time.Duration
}

// Reused reports whether this exchange of old is a reuse after its grace. Stores call it in an atomic step, so
// that no other exchange of the token comes between; used means that the token was exchanged before.
func (r Rotation) Reused(used bool, usedAt time.Time) bool {
	return used && (r.Grace <= 0 || r.Now.Sub(usedAt) > r.Grace)
}

// TokenStore keeps refresh tokens and revoked token ids, where they survive a restart and where replicas share them.
// Package authntest checks implementations.
type TokenStore interface {
	// Create adds the first token of a family.
	Create(ctx context.Context, s RefreshToken) error
	// Lookup returns the token with a hash, used or not, or ErrRefresh when there is none: unknown, or its family was
	// revoked. Claims come back with the numbers that were given, as json.Number or as the type that was given.
	Lookup(ctx context.Context, hash string) (RefreshToken, error)
	// Rotate records the first use of Old and adds Next, in one atomic step. It returns
	// ErrRefresh when Old is unknown, expired at Now, of another subject than Next, or of a revoked family. When
	// Rotation.Reused says so, it removes the whole family and returns ErrReused; the removal persists even when a
	// transaction of the caller, in ctx, is rolled back.
	Rotate(ctx context.Context, r Rotation) error
	// Sessions returns the newest token of each family of a subject, of those that have not expired at now, in any order.
	Sessions(ctx context.Context, subject string, now time.Time) ([]RefreshToken, error)
	// RevokeFamily removes all tokens of a family. It returns nil when there is no such family.
	RevokeFamily(ctx context.Context, family string) error
	// RevokeSubject removes all tokens of a subject.
	RevokeSubject(ctx context.Context, subject string) error
	// RevokeID remembers a token id (jti) as revoked until the given time, when the token has expired.
	RevokeID(ctx context.Context, id string, until time.Time) error
	// Revoked implements Revocations.
	Revoked(ctx context.Context, id string) (bool, error)
	// Purge removes tokens and revoked ids that had expired at the given time, and returns their number.
	Purge(ctx context.Context, now time.Time) (int, error)
}

// Subject is the user, or the service, that tokens are issued to.
type Subject struct {
	// ID becomes the claim sub. Required.
	ID string `json:"id,omitempty"`
	// ClientID is the OAuth 2.0 client that the tokens are issued to. It becomes the claim client_id (RFC 9068), and
	// the refresh token works for this client only (RFC 6749, section 6). Empty: any client may use it.
	ClientID string `json:"client_id,omitempty"`
	// Roles become the claim roles.
	Roles []string `json:"roles,omitempty"`
	// Scopes become the claim scope, separated by spaces. They are visible ASCII without quotes and backslashes (RFC
	// 6749).
	Scopes []string `json:"scopes,omitempty"`
	// Claims are further claims. Names that this package sets are refused.
	Claims map[string]any `json:"claims,omitempty"`
}

// clone copies what callers could change.
func (s Subject) clone() Subject {
	s.Roles = slices.Clone(s.Roles)
	s.Scopes = slices.Clone(s.Scopes)
	s.Claims = maps.Clone(s.Claims)
	return s
}

// claims returns the claims of a token of the subject, but for those of the issuer and of the token.
func (s Subject) claims() (map[string]any, error) {
	if s.ID == "" {
		return nil, errors.New("authn: issue: the subject has no id")
	}
	c := map[string]any{"sub": s.ID, "roles": append([]string{}, s.Roles...)} // never null
	if s.ClientID != "" {
		c["client_id"] = s.ClientID
	}
	if slices.ContainsFunc(s.Scopes, func(s string) bool { return s == "" || strings.ContainsFunc(s, notOfScope) }) {
		return nil, errors.New("authn: issue: a scope is empty or has characters that RFC 6749 does not allow")
	}
	if len(s.Scopes) > 0 {
		c["scope"] = strings.Join(s.Scopes, " ")
	}
	for name, v := range s.Claims {
		if registered[fold(name)] {
			return nil, fmt.Errorf("authn: issue: the claim %q is not the subject's to set", name)
		}
		c[name] = v
	}
	return c, nil
}

// notOfScope reports whether a scope may not have a character (RFC 6749, section 3.3): visible ASCII, but no quote and
// no backslash.
func notOfScope(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }

// splitScopes returns the scopes of a claim or a parameter, which are separated by spaces and nothing else.
func splitScopes(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' })
}

// UnmarshalJSON implements json.Unmarshaler. Numbers in Claims become json.Number, so that they keep their digits.
func (s *Subject) UnmarshalJSON(data []byte) error {
	type plain Subject // without this method
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode((*plain)(s))
}
