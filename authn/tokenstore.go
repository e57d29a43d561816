package authn

import (
	"context"
	"time"
)

// Grant is what a refresh token stands for. A store keeps the hash of the token, never the token.
type Grant struct {
	// Hash is the SHA-256 of the refresh token, in hexadecimal. It is unique.
	Hash string
	// Family is common to all refresh tokens that descend from one login.
	Family string
	// Subject is whom the grant belongs to.
	Subject Subject
	// CreatedAt is when this token was made.
	CreatedAt time.Time
	// ExpiresAt is when this token ends.
	ExpiresAt time.Time
	// FamilyEndsAt is when the family ends, however often it is refreshed.
	FamilyEndsAt time.Time
	// UsedAt is when the token was first exchanged for another; zero while it was not.
	UsedAt time.Time
}

// Rotation asks a TokenStore to exchange a refresh token for the next one.
type Rotation struct {
	// Old is the hash of the token that is presented.
	Old string
	// Next is the grant that takes its place, complete.
	Next Grant
	// Now is the time of the exchange.
	Now time.Time
	// Grace is for how long after its first use Old may be used again: for tabs that refresh at once, and for answers
	// that were lost.
	Grace time.Duration
}

// TokenStore keeps refresh tokens and revoked token ids, where they survive a restart and where replicas share them.
// Package authntest checks implementations.
type TokenStore interface {
	// Create adds the first grant of a family.
	Create(ctx context.Context, s Grant) error
	// Lookup returns the grant of a hash, used or not, or ErrRefresh when there is none: unknown, or its family was
	// revoked.
	Lookup(ctx context.Context, hash string) (Grant, error)
	// Rotate does, in one step that no other Rotate comes between: it notes the first use of Old and adds Next. It
	// returns ErrRefresh when Old is unknown, expired at Now, or of a revoked family. When Old was used more than Grace
	// before Now, it removes the whole family and returns ErrReused.
	Rotate(ctx context.Context, r Rotation) error
	// RevokeFamily removes all grants of a family. A family that is not there is no error.
	RevokeFamily(ctx context.Context, family string) error
	// RevokeSubject removes all grants of a subject.
	RevokeSubject(ctx context.Context, subject string) error
	// RevokeID remembers a token id (jti) as revoked until the given time, when the token has expired.
	RevokeID(ctx context.Context, id string, until time.Time) error
	// Revoked implements Revocations.
	Revoked(ctx context.Context, id string) (bool, error)
	// Purge forgets grants and revoked ids that had expired at the given time, and returns how many.
	Purge(ctx context.Context, now time.Time) (int, error)
}

// Subject is whom tokens are issued to.
type Subject struct {
	// ID becomes the claim sub. Required.
	ID string `json:"id"`
	// Roles become the claim roles.
	Roles []string `json:"roles,omitempty"`
	// Claims are further claims. Registered names are refused.
	Claims map[string]any `json:"claims,omitempty"`
}
