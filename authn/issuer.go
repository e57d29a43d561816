package authn

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/internal/secret"
)

// IssuerConfig describes the tokens that an Issuer makes. Issuer is required.
type IssuerConfig struct {
	// Issuer becomes iss. Required.
	Issuer string
	// Audience becomes aud. Empty: no aud, which a verifier that checks audiences refuses.
	Audience []string
	// Type is the header typ of access tokens. Default "at+jwt" (RFC 9068), and "JWT" for a shared secret. "JWT" is for
	// verifiers that know no other.
	Type string
	// TTL is how long access tokens live. Default 30 min. Shorter ones make revocation matter less.
	TTL time.Duration
	// RefreshTTL is how long a refresh token lives unless it is used. Default 14 days.
	RefreshTTL time.Duration
	// LoginTTL is how long one login lasts, however often it is refreshed. Default 90 days. Negative disables the limit.
	LoginTTL time.Duration
	// Grace is how long a used refresh token may be used again: for browser tabs that refresh at the same time and for
	// lost answers. Default 10 s. Negative disables it.
	Grace time.Duration
	// OnRefresh looks a subject up again when a login is refreshed, so that a change of roles takes effect. An error
	// refuses the refresh; one that matches ErrRefresh also ends the login. Nil: the subject stays what it was.
	OnRefresh func(ctx context.Context, s Subject) (Subject, error)
	// OnRevoke is called with every revocation, for the event tokens.revoked. An error fails the call that revoked.
	OnRevoke func(ctx context.Context, r Revocation) error
	// Logger logs reused refresh tokens. Default slog.Default().
	Logger *slog.Logger
}

// Revocation is what has been revoked: a token id, or the logins of a family or a subject.
type Revocation struct {
	// TokenID is the jti of a revoked access token.
	TokenID string
	// Until is when that token expires anyway.
	Until time.Time
	// Family is the family of revoked refresh tokens.
	Family string
	// Subject is the subject whose logins were revoked, or that Family belonged to.
	Subject string
}

// TokenPair is an access token and the refresh token that gets the next one, in the form of an OAuth2 answer. It
// marshals to JSON with the tokens, and prints and logs without them.
type TokenPair struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token,omitempty"`
}

// String implements fmt.Stringer without the tokens.
func (TokenPair) String() string { return secret.Redacted }

// GoString implements fmt.GoStringer without the tokens.
func (TokenPair) GoString() string { return secret.Redacted }

// LogValue implements slog.LogValuer without the tokens.
func (TokenPair) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }

// Issuer issues, refreshes and revokes tokens.
type Issuer struct {
	keys   *KeySet
	store  TokenStore
	cfg    IssuerConfig
	verify *Verifier
}

// NewIssuer returns an issuer that signs with keys and keeps logins in store.
func NewIssuer(keys *KeySet, store TokenStore, cfg IssuerConfig) (*Issuer, error) {
	if keys == nil || store == nil {
		return nil, errors.New("authn: an Issuer needs a KeySet and a TokenStore")
	}
	if cfg.Issuer == "" {
		return nil, errors.New("authn: IssuerConfig: Issuer is required")
	}
	cfg.TTL = cmp.Or(cfg.TTL, 30*time.Minute)
	cfg.RefreshTTL = cmp.Or(cfg.RefreshTTL, 14*24*time.Hour)
	cfg.LoginTTL = cmp.Or(cfg.LoginTTL, 90*24*time.Hour)
	cfg.Grace = cmp.Or(cfg.Grace, 10*time.Second)
	cfg.Grace = max(cfg.Grace, 0)
	if cfg.TTL < time.Second || cfg.RefreshTTL < time.Second {
		return nil, errors.New("authn: IssuerConfig: TTL and RefreshTTL must be a second or more")
	}
	if cfg.TTL+maxLeeway > keys.cfg.VerifyFor {
		return nil, fmt.Errorf(
			"authn: IssuerConfig: tokens live %s, but the keys verify only %s after they last signed", cfg.TTL,
			keys.cfg.VerifyFor,
		)
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	v, err := NewVerifier(keys, VerifierConfig{
		Issuer: cfg.Issuer, Types: []string{"at+jwt", "JWT", cfg.Type}, CacheSize: -1, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Issuer{keys: keys, store: store, cfg: cfg, verify: v}, nil
}

// Issue begins a login of a subject that the caller has authenticated.
func (i *Issuer) Issue(ctx context.Context, s Subject) (TokenPair, error) {
	now := time.Now().UTC()
	access, err := i.access(ctx, s, now)
	if err != nil {
		return TokenPair{}, err
	}
	refresh, hash := newRefresh()
	first := RefreshToken{Hash: hash, Family: id.New(), Subject: s, CreatedAt: now}
	if i.cfg.LoginTTL > 0 {
		first.FamilyEndsAt = now.Add(i.cfg.LoginTTL)
	}
	first.ExpiresAt = i.expiry(now, first.FamilyEndsAt)
	if err := i.store.Create(ctx, first); err != nil {
		return TokenPair{}, fmt.Errorf("authn: store the login: %w", err)
	}
	return i.pair(access, refresh), nil
}

// IssueAccess returns an access token without a refresh token, for a caller that can authenticate again at any time: a
// service, with the grant client_credentials.
func (i *Issuer) IssueAccess(ctx context.Context, s Subject) (TokenPair, error) {
	access, err := i.access(ctx, s, time.Now().UTC())
	if err != nil {
		return TokenPair{}, err
	}
	return i.pair(access, ""), nil
}

// Refresh exchanges a refresh token for a new pair. clientID is the authenticated client that presents it, empty when
// there is none: a token that was issued to a client is refused to every other (ErrRefresh). A token that was used
// before, longer ago than Grace, ends the whole login (ErrReused): one of its two users has stolen it.
func (i *Issuer) Refresh(ctx context.Context, refreshToken, clientID string) (TokenPair, error) {
	old := hashSecret(refreshToken)
	s, err := i.store.Lookup(ctx, old)
	if err != nil {
		return TokenPair{}, fmt.Errorf("authn: refresh: %w", err)
	}
	if s.Subject.ClientID != "" && s.Subject.ClientID != clientID {
		i.cfg.Logger.WarnContext(ctx, "authn: a refresh token was presented by another client than it was issued to",
			"subject", s.Subject.ID, "family", s.Family, "client_id", s.Subject.ClientID)
		return TokenPair{}, fmt.Errorf("authn: refresh: %w", ErrRefresh)
	}
	now := time.Now().UTC()
	rotation := Rotation{Old: old, Now: now, Grace: i.cfg.Grace}
	subject := s.Subject
	reused := rotation.Reused(!s.UsedAt.IsZero(), s.UsedAt) // Rotate decides; this only saves a look-up
	if i.cfg.OnRefresh != nil && !reused {
		if subject, err = i.cfg.OnRefresh(ctx, subject); err != nil {
			if errors.Is(err, ErrRefresh) {
				return TokenPair{}, errors.Join(err, i.revokeFamily(ctx, s))
			}
			return TokenPair{}, fmt.Errorf("authn: refresh: %w", err)
		}
		if subject.ID != s.Subject.ID {
			return TokenPair{}, errors.New("authn: refresh: OnRefresh returned another subject")
		}
		subject.ClientID = s.Subject.ClientID
	}
	access, err := i.access(ctx, subject, now) // before the exchange: a failure here costs no login
	if err != nil {
		return TokenPair{}, err
	}
	refresh, hash := newRefresh()
	rotation.Next = RefreshToken{
		Hash: hash, Family: s.Family, Subject: subject, CreatedAt: now,
		ExpiresAt: i.expiry(now, s.FamilyEndsAt), FamilyEndsAt: s.FamilyEndsAt,
	}
	err = i.store.Rotate(ctx, rotation)
	if errors.Is(err, ErrReused) {
		i.cfg.Logger.WarnContext(ctx, "authn: a refresh token was used twice, its login is revoked",
			"subject", s.Subject.ID, "family", s.Family)
		err = errors.Join(err, i.notifyRevoked(ctx, Revocation{Family: s.Family, Subject: s.Subject.ID}))
	}
	if err != nil {
		return TokenPair{}, fmt.Errorf("authn: refresh: %w", err)
	}
	return i.pair(access, refresh), nil
}

// Revoke ends the login of a refresh token, or revokes an access token by its id. A token that is no longer valid is no
// error (RFC 7009).
func (i *Issuer) Revoke(ctx context.Context, token string) error {
	return i.revoke(ctx, token, func(string) bool { return true })
}

// revoke is Revoke for the clients that owner admits; others get ErrClient.
func (i *Issuer) revoke(ctx context.Context, token string, owner func(clientID string) bool) error {
	if strings.Contains(token, ".") {
		u, err := i.verify.verify(ctx, token)
		if errors.Is(err, ErrToken) {
			return nil
		}
		if err != nil {
			return err
		}
		if !owner(u.ClientID) {
			return ErrClient
		}
		return i.RevokeID(ctx, u.TokenID, u.ExpiresAt)
	}
	s, err := i.store.Lookup(ctx, hashSecret(token))
	if errors.Is(err, ErrRefresh) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("authn: revoke: %w", err)
	}
	if !owner(s.Subject.ClientID) {
		return ErrClient
	}
	return i.revokeFamily(ctx, s)
}

// RevokeID revokes an access token by its id (jti); until is when it expires.
func (i *Issuer) RevokeID(ctx context.Context, tokenID string, until time.Time) error {
	if tokenID == "" {
		return errors.New("authn: revoke: the token has no id")
	}
	until = until.Add(maxLeeway)
	if err := i.store.RevokeID(ctx, tokenID, until); err != nil {
		return fmt.Errorf("authn: revoke: %w", err)
	}
	return i.notifyRevoked(ctx, Revocation{TokenID: tokenID, Until: until})
}

// RevokeSubject ends all logins of a subject. Access tokens that were issued remain valid until they expire.
func (i *Issuer) RevokeSubject(ctx context.Context, subject string) error {
	if err := i.store.RevokeSubject(ctx, subject); err != nil {
		return fmt.Errorf("authn: revoke: %w", err)
	}
	return i.notifyRevoked(ctx, Revocation{Subject: subject})
}

func (i *Issuer) revokeFamily(ctx context.Context, s RefreshToken) error {
	if err := i.store.RevokeFamily(ctx, s.Family); err != nil {
		return fmt.Errorf("authn: revoke: %w", err)
	}
	return i.notifyRevoked(ctx, Revocation{Family: s.Family, Subject: s.Subject.ID})
}

func (i *Issuer) notifyRevoked(ctx context.Context, r Revocation) error {
	if i.cfg.OnRevoke == nil {
		return nil
	}
	if err := i.cfg.OnRevoke(ctx, r); err != nil {
		return fmt.Errorf("authn: OnRevoke: %w", err)
	}
	return nil
}

// access makes an access token (RFC 9068).
func (i *Issuer) access(ctx context.Context, s Subject, now time.Time) (string, error) {
	c, err := s.claims()
	if err != nil {
		return "", err
	}
	c["iss"], c["jti"] = i.cfg.Issuer, id.New()
	c["iat"], c["exp"] = now.Unix(), now.Add(i.cfg.TTL).Unix()
	if len(i.cfg.Audience) > 0 {
		c["aud"] = i.cfg.Audience
	}
	payload, err := encodeClaims(c, func(payload string) error {
		_, err := i.verify.readClaims(payload)
		return err
	})
	if err != nil {
		return "", err
	}
	token, err := i.keys.sign(ctx, payload, i.cfg.Type)
	if err == nil && len(token) > MaxTokenSize {
		err = fmt.Errorf("authn: issue: a token of %d bytes, verifiers read at most %d", len(token), MaxTokenSize)
	}
	return token, err
}

func (i *Issuer) expiry(now, familyEnds time.Time) time.Time {
	e := now.Add(i.cfg.RefreshTTL)
	if !familyEnds.IsZero() && familyEnds.Before(e) {
		return familyEnds
	}
	return e
}

func (i *Issuer) pair(access, refresh string) TokenPair {
	return TokenPair{
		AccessToken:  access,
		TokenType:    "Bearer",
		ExpiresIn:    int64(i.cfg.TTL / time.Second),
		RefreshToken: refresh,
	}
}

// newRefresh makes a refresh token of 256 random bits, and its hash. Hashing needs no salt at that strength.
func newRefresh() (token, hash string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	token = base64.RawURLEncoding.EncodeToString(b)
	return token, hashSecret(token)
}
