package authn

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// APIKeyConfig tunes APIKeys. The zero value is useful.
type APIKeyConfig struct {
	// Prefix begins every key, so that people and secret scanners recognise it, such as "shop_live". At most 32 letters
	// and digits of ASCII, and underscores between them. Default "key".
	Prefix string
	// TTL is how long a key lives after it was issued or rotated. Default 365 days. Negative disables expiry.
	TTL time.Duration
	// Overlap is how long the old secret works after a rotation, while the new one is deployed. Default 24 h. Negative
	// disables it: the old secret ends at once.
	Overlap time.Duration
	// OnVerify looks the subject of a key up again each time the key is verified, so that a change of roles takes effect
	// or a locked user is refused. An error that matches ErrAPIKey refuses the key; other errors become ErrUnavailable.
	// Nil: the subject stays what it was when the key was issued.
	OnVerify func(ctx context.Context, k APIKey) (Subject, error)
}

// APIKeys issues, verifies, rotates and revokes API keys: long-lived secrets for programs, which cannot log in. A key
// is its prefix, a public id and a secret of 256 random bits: "shop_live_3zj5…_k6o4…". The store keeps a hash of the
// secret.
//
// A Verifier with VerifierConfig.APIKeys accepts the keys beside tokens.
type APIKeys struct {
	store APIKeyStore
	cfg   APIKeyConfig
}

// NewAPIKeys returns API keys that are kept in store.
func NewAPIKeys(store APIKeyStore, cfg APIKeyConfig) (*APIKeys, error) {
	if store == nil {
		return nil, errors.New("authn: APIKeys need an APIKeyStore")
	}
	cfg.Prefix = cmp.Or(cfg.Prefix, "key")
	cfg.TTL = cmp.Or(cfg.TTL, 365*24*time.Hour)
	cfg.Overlap = cmp.Or(cfg.Overlap, 24*time.Hour)
	if !plainPrefix(cfg.Prefix) {
		return nil, errors.New("authn: APIKeyConfig: Prefix must be at most 32 letters, digits and underscores between them")
	}
	return &APIKeys{store: store, cfg: cfg}, nil
}

func plainPrefix(s string) bool {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	}
	return len(s) <= 32 && !strings.ContainsFunc(s, other) && strings.Trim(s, "_") == s
}

// APIKeyOptions describes a new key. The zero value is useful.
type APIKeyOptions struct {
	// Name describes the key for people.
	Name string
	// TTL is how long this key lives. Default APIKeyConfig.TTL. Negative disables expiry.
	TTL time.Duration
}

// Issue makes a key for a subject, with the subject's roles and scopes. secret is the whole key as a client sends it.
// It cannot be read again: show it once.
func (a *APIKeys) Issue(ctx context.Context, s Subject, opt APIKeyOptions) (secret string, k APIKey, err error) {
	now := time.Now().UTC()
	k = APIKey{ID: randomText(apiKeyIDSize), Name: opt.Name, Subject: s, CreatedAt: now}
	k.ExpiresAt = endOf(now, cmp.Or(opt.TTL, a.cfg.TTL))
	if _, err := apiKeyUser(k, s); err != nil {
		return "", APIKey{}, err
	}
	secret, k.Hash = a.newSecret(k.ID)
	if err := a.store.Create(ctx, k); err != nil {
		return "", APIKey{}, fmt.Errorf("authn: store the API key: %w", err)
	}
	return secret, k, nil
}

// Rotate gives a key a new secret, and returns the whole key as a client sends it. Id, subject and name stay. The old
// secret works for APIKeyConfig.Overlap longer; a secret from before an earlier rotation ends at once. The key lives as
// long from now on as it was issued for. The error is ErrAPIKey when there is no such key or it has expired, and
// ErrKeyConflict when another caller rotates it at the same time.
func (a *APIKeys) Rotate(ctx context.Context, id string) (secret string, err error) {
	k, err := a.lookup(ctx, id)
	if err != nil {
		return "", fmt.Errorf("authn: rotate the API key: %w", err)
	}
	now := time.Now().UTC()
	if k.expired(now) {
		return "", fmt.Errorf("authn: rotate the API key: it has expired: %w", ErrAPIKey)
	}
	r := APIKeyRotation{ID: id, Old: k.Hash, Now: now, PreviousUntil: now.Add(max(a.cfg.Overlap, 0))}
	if !k.ExpiresAt.IsZero() {
		began := cmp.Or(k.RotatedAt, k.CreatedAt)
		r.ExpiresAt = now.Add(k.ExpiresAt.Sub(began))
	}
	secret, r.Next = a.newSecret(id)
	if err := a.store.Rotate(ctx, r); err != nil {
		return "", fmt.Errorf("authn: rotate the API key: %w", err)
	}
	return secret, nil
}

// List returns the keys of a subject, the oldest first, expired ones too as long as they were not purged.
func (a *APIKeys) List(ctx context.Context, subject string) ([]APIKey, error) {
	keys, err := a.store.List(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("authn: list the API keys: %w", err)
	}
	return keys, nil
}

// Revoke ends a key at once. subject is its owner: a key of another subject gives ErrAPIKey, as an unknown id does, so
// that users end keys of their own only.
func (a *APIKeys) Revoke(ctx context.Context, subject, id string) error {
	k, err := a.lookup(ctx, id)
	if err == nil && k.Subject.ID != subject {
		err = ErrAPIKey
	}
	if err == nil {
		err = a.store.Delete(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("authn: revoke the API key: %w", err)
	}
	return nil
}

// RevokeSubject ends all keys of a subject at once.
func (a *APIKeys) RevokeSubject(ctx context.Context, subject string) error {
	if err := a.store.DeleteSubject(ctx, subject); err != nil {
		return fmt.Errorf("authn: revoke the API keys: %w", err)
	}
	return nil
}

// Verify returns the user that a key stands for. User.TokenID is the id of the key; User.ExpiresAt is zero for a key
// that does not expire. The error is a *TokenError that matches ErrAPIKey or ErrExpired, or matches ErrUnavailable.
// Each call reads the store once, so that a revoked key is refused at once.
func (a *APIKeys) Verify(ctx context.Context, secret string) (*User, error) {
	id, ok := a.id(secret)
	if !ok {
		return nil, &TokenError{Reason: "malformed API key", Err: ErrAPIKey}
	}
	k, err := a.store.Lookup(ctx, id)
	if err != nil && !errors.Is(err, ErrAPIKey) {
		return nil, unavailable("look up the API key", err)
	}
	now := time.Now()
	// An unknown id takes the same steps as a wrong secret: both are compared with hashes that do not match.
	hash := []byte(hashSecret(secret))
	match := subtle.ConstantTimeCompare(hash, []byte(cmp.Or(k.Hash, noHash)))
	previous := subtle.ConstantTimeCompare(hash, []byte(cmp.Or(k.PreviousHash, noHash)))
	switch {
	case err != nil:
		return nil, &TokenError{Reason: "unknown API key", Err: ErrAPIKey}
	case match == 0 && previous == 0:
		return nil, &TokenError{Reason: "wrong secret of an API key", Err: ErrAPIKey}
	case k.expired(now), match == 0 && !now.Before(k.PreviousUntil):
		return nil, &TokenError{Reason: "expired", Err: ErrExpired}
	}
	s := k.Subject
	if a.cfg.OnVerify != nil {
		if s, err = a.cfg.OnVerify(ctx, k); errors.Is(err, ErrAPIKey) {
			return nil, &TokenError{Reason: "API key of a refused subject", Err: ErrAPIKey}
		} else if err != nil {
			return nil, unavailable("look up the subject of an API key", err)
		}
		if s.ID != k.Subject.ID {
			return nil, unavailable("look up the subject of an API key", errors.New("OnVerify returned another one"))
		}
	}
	u, err := apiKeyUser(k, s)
	if err != nil {
		return nil, unavailable("read the subject of an API key", err)
	}
	if match == 0 && (u.ExpiresAt.IsZero() || k.PreviousUntil.Before(u.ExpiresAt)) {
		u.ExpiresAt = k.PreviousUntil
	}
	return u, nil
}

// lookup returns the key with an id that a client may have sent: databases refuse some texts with errors of their own.
func (a *APIKeys) lookup(ctx context.Context, id string) (APIKey, error) {
	if len(id) != apiKeyIDLen || !plainText(id) {
		return APIKey{}, ErrAPIKey
	}
	return a.store.Lookup(ctx, id)
}

func (k *APIKey) expired(now time.Time) bool {
	return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)
}

// apiKeyUser returns the user of a key, with the claims that a token of the same subject would have.
func apiKeyUser(k APIKey, s Subject) (*User, error) {
	c, err := s.claims()
	if err != nil {
		return nil, err
	}
	var all map[string]any
	payload, err := encodeClaims(c, func(payload string) (err error) {
		all, err = strictObject(payload)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &User{
		ID: s.ID, Roles: append([]string(nil), s.Roles...), Scopes: append([]string(nil), s.Scopes...), ClientID: s.ClientID,
		Claims: all, TokenID: k.ID, ExpiresAt: k.ExpiresAt, payload: string(payload),
	}, nil
}

// issued reports whether a bearer token looks like a key. No JWT does: each begins with the base64 of a brace.
func (a *APIKeys) issued(bearer string) bool {
	return len(bearer) > len(a.cfg.Prefix) && bearer[len(a.cfg.Prefix)] == '_' && strings.HasPrefix(bearer, a.cfg.Prefix)
}

// Sizes of the parts of a key, in random bytes: the id is unique, the secret is not guessed.
const (
	apiKeyIDSize     = 10
	apiKeySecretSize = 32
)

var (
	apiKeyText  = base32.NewEncoding(apiKeyAlphabet).WithPadding(base32.NoPadding)
	apiKeyIDLen = apiKeyText.EncodedLen(apiKeyIDSize)
	apiKeyLen   = apiKeyIDLen + 1 + apiKeyText.EncodedLen(apiKeySecretSize) // without the prefix
)

// noHash is the hash of no secret, as long as any other.
var noHash = strings.Repeat("-", hex.EncodedLen(sha256.Size))

const apiKeyAlphabet = "abcdefghijklmnopqrstuvwxyz234567"

// id returns the id in a key whose form is right.
func (a *APIKeys) id(key string) (string, bool) {
	if !a.issued(key) {
		return "", false
	}
	rest := key[len(a.cfg.Prefix)+1:]
	if len(rest) != apiKeyLen || rest[apiKeyIDLen] != '_' {
		return "", false
	}
	id := rest[:apiKeyIDLen]
	return id, plainText(id) && plainText(rest[apiKeyIDLen+1:])
}

// plainText reports whether randomText may have made s.
func plainText(s string) bool { return strings.Trim(s, apiKeyAlphabet) == "" }

// newSecret makes the text of a key, and its hash. Hashing needs no salt at 256 random bits.
func (a *APIKeys) newSecret(id string) (secret, hash string) {
	secret = a.cfg.Prefix + "_" + id + "_" + randomText(apiKeySecretSize)
	return secret, hashSecret(secret)
}

func randomText(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return apiKeyText.EncodeToString(b)
}

func hashSecret(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func endOf(now time.Time, ttl time.Duration) time.Time {
	if ttl < 0 {
		return time.Time{}
	}
	return now.Add(ttl)
}

// APIKeyHeader returns middleware that takes an API key from a header such as X-API-Key, where clients cannot set
// Authorization, and puts it there as a bearer token for Require. A request with both is refused by Require.
func APIKeyHeader(name string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if keys := r.Header.Values(name); len(keys) > 0 {
				r = r.Clone(r.Context()) // outer middleware may still read the original
				for _, k := range keys {
					r.Header.Add("Authorization", "Bearer "+k)
				}
				r.Header.Del(name)
			}
			next.ServeHTTP(w, r)
		})
	}
}
