package authn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/sillar-go/sillar/authn"

// maxLeeway is the largest difference of clocks that is forgiven.
const maxLeeway = 30 * time.Second

// Revocations knows revoked token ids: every TokenStore does, and RevokedIDs in services that learn of them by events.
type Revocations interface {
	// Revoked reports whether the token id (jti) has been revoked.
	Revoked(ctx context.Context, id string) (bool, error)
}

// VerifierConfig says which tokens are accepted. Issuer or Audience is required.
type VerifierConfig struct {
	// Issuer is the only accepted iss. Empty: not checked.
	Issuer string
	// Audience holds what the token may be meant for: one of it must be in the token's aud. Empty: not checked.
	Audience []string
	// Unbound allows both Issuer and Audience to be empty: then every token of the keys is accepted, also one that was
	// meant for somebody else. It exists for services that share a secret and set neither.
	Unbound bool
	// Leeway forgives differences of clocks. Default 30 s, which is also the most. Negative: none.
	Leeway time.Duration
	// Types are the accepted values of the header typ. Default: "at+jwt", "JWT", and none at all. A verifier that names
	// types requires one.
	Types []string
	// RolesClaim is the claim that holds the roles, an array of strings. Default "roles".
	RolesClaim string
	// Revocations is asked about each token's id. Nil: tokens cannot be revoked, only expire. When set, a token without
	// an id is refused.
	Revocations Revocations
	// CacheSize is how many verified tokens are remembered, by their hash, so that a signature is checked once. Times,
	// revocation and the presence of the key are checked each time. Default 4096; negative: none.
	CacheSize int
	// Logger is told when keys or revocations are out of reach. Default slog.Default().
	Logger *slog.Logger
	// MeterProvider makes the counter of refused tokens. Nil means the global one.
	MeterProvider metric.MeterProvider
}

// Verifier accepts or refuses tokens. It is safe for concurrent use.
type Verifier struct {
	set     Set
	cfg     VerifierConfig
	cache   *tokenCache
	refused metric.Int64Counter
}

// NewVerifier returns a Verifier of the set's tokens.
func NewVerifier(set Set, cfg VerifierConfig) (*Verifier, error) {
	if set == nil {
		return nil, errors.New("authn: a Verifier needs a Set of keys")
	}
	if cfg.Issuer == "" && len(cfg.Audience) == 0 && !cfg.Unbound {
		return nil, errors.New("authn: VerifierConfig: Issuer or Audience is required, or Unbound")
	}
	switch {
	case cfg.Leeway == 0:
		cfg.Leeway = maxLeeway
	case cfg.Leeway < 0:
		cfg.Leeway = 0
	case cfg.Leeway > maxLeeway:
		return nil, fmt.Errorf("authn: VerifierConfig: Leeway is %s, at most %s", cfg.Leeway, maxLeeway)
	}
	if cfg.RolesClaim == "" {
		cfg.RolesClaim = "roles"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	v := &Verifier{set: set, cfg: cfg, cache: newTokenCache(cfg.CacheSize)}
	var err error
	v.refused, err = cfg.MeterProvider.Meter(scope).Int64Counter("sillar.authn.refused",
		metric.WithUnit("{token}"), metric.WithDescription("Tokens that were refused, by reason."))
	if err != nil {
		return nil, fmt.Errorf("authn: make the counter: %w", err)
	}
	return v, nil
}

// MustVerifier returns v or panics with err.
func MustVerifier(v *Verifier, err error) *Verifier {
	if err != nil {
		panic(err)
	}
	return v
}

// Verify checks a token and returns whose it is. The error is a *TokenError, or matches ErrUnavailable.
func (v *Verifier) Verify(ctx context.Context, token string) (*User, error) {
	u, err := v.verify(ctx, token)
	if err != nil {
		v.tell(ctx, err)
		return nil, err
	}
	return u, nil
}

// Authenticate is Verify in builtin types, for packages that do not import this one. bearer is the token without its
// scheme. Errors that are the caller's have a Challenge() string; those that match ErrUnavailable have a Temporary() bool.
func (v *Verifier) Authenticate(ctx context.Context, bearer string) (subject string, roles []string, claims map[string]any, err error) {
	if bearer == "" {
		return "", nil, nil, missing
	}
	u, err := v.Verify(ctx, bearer)
	if err != nil {
		return "", nil, nil, err
	}
	return u.ID, u.Roles, u.Claims, nil
}

func (v *Verifier) tell(ctx context.Context, err error) {
	reason := "unavailable"
	if t, ok := errors.AsType[*TokenError](err); ok {
		reason = t.Reason
	} else {
		v.cfg.Logger.ErrorContext(ctx, "tokens cannot be verified", "error", err)
	}
	v.refused.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

func (v *Verifier) verify(ctx context.Context, token string) (*User, error) {
	c := v.cache.get(token)
	fresh := c == nil
	if fresh {
		j, err := split(token)
		if err != nil {
			return nil, err
		}
		if j.typ == "" && len(v.cfg.Types) > 0 || j.typ != "" && !v.accepts(j.typ) {
			return nil, refuse("type")
		}
		if cty, ok := j.header["cty"].(string); ok && strings.HasSuffix(strings.ToLower(cty), "jwt") {
			return nil, refuse("nested token")
		}
		key, err := v.key(ctx, j.kid)
		if err != nil {
			return nil, err
		}
		if err := j.check(key); err != nil {
			return nil, err
		}
		if c, err = v.read(j.payload); err != nil {
			return nil, err
		}
		c.key, c.kid = key, j.kid
	} else if key, err := v.key(ctx, c.kid); err != nil {
		return nil, err
	} else if key.Algorithm != c.key.Algorithm || !samePublic(key.Public, c.key.Public) {
		return nil, refuse("signature") // the id means another key now
	}
	if err := v.current(ctx, c); err != nil {
		return nil, err
	}
	if fresh {
		v.cache.put(token, c)
	}
	return c.user(), nil
}

func (v *Verifier) accepts(typ string) bool {
	if len(v.cfg.Types) > 0 {
		return plainType(typ, v.cfg.Types)
	}
	return plainType(typ, defaultTypes)
}

var defaultTypes = []string{"at+jwt", "JWT"}

func (v *Verifier) key(ctx context.Context, kid string) (VerifyKey, error) {
	key, err := v.set.Key(ctx, kid)
	switch {
	case err == nil:
		return key, nil
	case errors.Is(err, ErrUnknownKey):
		return VerifyKey{}, &TokenError{Reason: "unknown key", Err: ErrUnknownKey}
	case errors.Is(err, ErrUnavailable):
		return VerifyKey{}, err
	}
	return VerifyKey{}, unavailable("find the key", err)
}

// current checks what changes while a token stays the same: the time, and revocation.
func (v *Verifier) current(ctx context.Context, c *claims) error {
	now := time.Now()
	if !now.Before(c.exp.Add(v.cfg.Leeway)) {
		return &TokenError{Reason: "expired", Err: ErrExpired}
	}
	if earliest := now.Add(v.cfg.Leeway); c.nbf.After(earliest) || c.iat.After(earliest) {
		return refuse("not valid yet")
	}
	if v.cfg.Revocations == nil {
		return nil
	}
	if c.jti == "" {
		return refuse("no id")
	}
	revoked, err := v.cfg.Revocations.Revoked(ctx, c.jti)
	if err != nil {
		return unavailable("ask for revocation", err)
	}
	if revoked {
		return &TokenError{Reason: "revoked", Err: ErrRevoked}
	}
	return nil
}

// meant reports whether one of the token's audiences is one of ours.
func (v *Verifier) meant(aud []string) bool {
	return len(v.cfg.Audience) == 0 || slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(v.cfg.Audience, a) })
}
