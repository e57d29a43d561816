package authn

import (
	"context"
	"time"
)

// APIKey is what a store keeps of an API key: the hash of its secret, never the secret. It marshals to JSON without the
// hashes, for a list that its owner sees.
type APIKey struct {
	// ID is the public part of the key, by which it is found. It does not change when the key is rotated.
	ID string `json:"id"`
	// Name describes the key for people, such as "CI of the web team".
	Name string `json:"name,omitempty"`
	// Subject is the user, or the service, that the key stands for, with the roles and scopes of the key.
	Subject Subject `json:"subject"`
	// Hash is the SHA-256 of the secret, in hexadecimal.
	Hash string `json:"-"`
	// PreviousHash is the hash of the secret before the last rotation, empty when there was none.
	PreviousHash string `json:"-"`
	// PreviousUntil is when the previous secret ends.
	PreviousUntil time.Time `json:"previous_until,omitzero"`
	// CreatedAt is when the key was issued.
	CreatedAt time.Time `json:"created_at"`
	// RotatedAt is when the present secret was made; zero for the first.
	RotatedAt time.Time `json:"rotated_at,omitzero"`
	// ExpiresAt is when the key ends; zero for a key that does not expire.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// APIKeyRotation asks an APIKeyStore to replace the secret of a key.
type APIKeyRotation struct {
	// ID is the id of the key.
	ID string
	// Old is the hash that the key has now.
	Old string
	// Next is the hash that takes its place. Old becomes PreviousHash.
	Next string
	// Now becomes RotatedAt.
	Now time.Time
	// PreviousUntil is when the old secret ends.
	PreviousUntil time.Time
	// ExpiresAt is when the key ends; zero for a key that does not expire.
	ExpiresAt time.Time
}

// APIKeyStore keeps API keys, where they survive a restart and where replicas share them. Package authntest checks
// implementations.
type APIKeyStore interface {
	// Create adds a key. An ID that exists is an error.
	Create(ctx context.Context, k APIKey) error
	// Lookup returns the key with an id, expired or not, or ErrAPIKey when there is none. Claims come back with the
	// numbers that were given, as json.Number or as the type that was given.
	Lookup(ctx context.Context, id string) (APIKey, error)
	// List returns the keys of a subject, the oldest first.
	List(ctx context.Context, subject string) ([]APIKey, error)
	// Rotate replaces the secret of a key in one atomic step. It returns ErrAPIKey when there is no such key, and
	// ErrKeyConflict when its hash is not Old any more: another caller has rotated it.
	Rotate(ctx context.Context, r APIKeyRotation) error
	// Delete removes a key. It returns nil when there is no such key.
	Delete(ctx context.Context, id string) error
	// DeleteSubject removes all keys of a subject.
	DeleteSubject(ctx context.Context, subject string) error
	// Purge removes keys that had expired at the given time, and returns their number.
	Purge(ctx context.Context, now time.Time) (int, error)
}
