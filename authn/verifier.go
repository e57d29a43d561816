package authn

import (
	"cmp"
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

// maxLeeway is the largest difference of clocks that is accepted.
const maxLeeway = 30 * time.Second

// Revocations knows revoked token ids. Every TokenStore is one; RevokedIDs is one for services that learn of
// revocations by events.
type Revocations interface {
	// Revoked reports whether the token id (jti) has been revoked.
	Revoked(ctx context.Context, id string) (bool, error)
}

// VerifierConfig describes the tokens that are accepted. Issuer is required, and Audience is recommended. Package
// issuers has the settings for the tokens of common identity providers.
type VerifierConfig struct {
	// Issuer is the only accepted issuer (iss). Required unless Unbound is set.
	Issuer string
	// Audience lists the names of this service: the token must be meant for one of them. Empty: not checked. Then
	// tokens must name their type at+jwt (RFC 9068), unless Types says otherwise: an ID token, which is meant for
	// another program, cannot be distinguished from an access token of the type JWT.
	Audience []string
	// AudienceClaim is the claim that Audience is compared with, a name or a path such as RolesClaim. Default "aud".
	// The access tokens of Amazon Cognito have client_id in its place.
	AudienceClaim string
	// Unbound allows an empty Issuer. Then every token of the keys is accepted, also one that was meant for another
	// service, unless Audience is set. It exists for services that share a secret and set neither.
	Unbound bool
	// Leeway is the difference of clocks that is accepted, in both directions. Default 30 s, which is also the most.
	// Negative disables it.
	Leeway time.Duration
	// Types are the accepted values of the header typ. Default: "at+jwt", "JWT", and none at all; "at+jwt" alone when
	// Audience is empty. A verifier that names types requires one; "" stands for none.
	Types []string
	// IDTokens accepts OpenID Connect ID tokens, for front ends whose issuer (Google, Firebase) gives them no access
	// tokens that a service could verify. Default: what can be recognised as an ID token is refused.
	IDTokens bool
	// RolesClaim is the claim that holds the roles: an array of strings, one string, or an object whose member names
	// are the roles. A name with dots that is no claim itself is a path, such as "realm_access.roles". Default "roles".
	RolesClaim string
	// Revocations is asked about the id of each token. Nil: tokens cannot be revoked, only expire. When set, a token
	// without an id is refused.
	Revocations Revocations
	// APIKeys accepts API keys too, in the place of a bearer token. Nil: API keys are refused. With APIKeys the KeySource
	// may be nil: then only API keys are accepted, and Issuer is not required.
	APIKeys *APIKeys
	// CacheSize is the number of verified tokens that are remembered, by their hash, so that a signature is checked
	// once. Times, revocation and the presence of the key are checked each time. Default 4096. Negative disables it.
	CacheSize int
	// Logger logs every refusal at INFO, with its reason and without the token, and outages of keys and revocations
	// at ERROR. Default slog.Default().
	Logger *slog.Logger
	// MeterProvider makes the counter sillar.authn.refused. Nil means the global one.
	MeterProvider metric.MeterProvider
}

// Verifier accepts or refuses tokens. It is safe for concurrent use.
type Verifier struct {
	keys    KeySource
	cfg     VerifierConfig
	cache   *tokenCache
	refused metric.Int64Counter
	joined  []*Verifier // chosen by issuer; then the other fields but refused and the logger are not used
}

// NewVerifier returns a Verifier for the tokens of the given keys.
func NewVerifier(keys KeySource, cfg VerifierConfig) (*Verifier, error) {
	if keys == nil && cfg.APIKeys == nil {
		return nil, errors.New("authn: a Verifier needs a KeySource")
	}
	if cfg.Issuer == "" && !cfg.Unbound && keys != nil {
		return nil, errors.New("authn: VerifierConfig: Issuer is empty, so that tokens of every issuer with these keys " +
			"would be accepted; set it, or Unbound")
	}
	if slices.Contains(cfg.Audience, "") {
		return nil, errors.New("authn: VerifierConfig: Audience contains an empty string")
	}
	switch {
	case cfg.Leeway < 0:
		cfg.Leeway = 0
	case cfg.Leeway > maxLeeway:
		return nil, fmt.Errorf("authn: VerifierConfig: Leeway is %s, at most %s", cfg.Leeway, maxLeeway)
	default:
		cfg.Leeway = cmp.Or(cfg.Leeway, maxLeeway)
	}
	if len(cfg.Types) == 0 {
		cfg.Types = []string{"at+jwt", "JWT", ""}
		if len(cfg.Audience) == 0 && !cfg.Unbound {
			cfg.Types = []string{"at+jwt"}
		}
	}
	cfg.RolesClaim = cmp.Or(cfg.RolesClaim, "roles")
	cfg.AudienceClaim = cmp.Or(cfg.AudienceClaim, "aud")
	v := &Verifier{keys: keys, cfg: cfg, cache: newTokenCache(cfg.CacheSize)}
	return v, v.instrument()
}

// Join returns a Verifier that accepts the tokens of several issuers: each token is verified by the one Verifier whose
// Issuer it names. Each Verifier needs an Issuer of its own. Logger and MeterProvider are those of the first, APIKeys
// those of the first Verifier that has them.
func Join(verifiers ...*Verifier) (*Verifier, error) {
	if len(verifiers) == 0 {
		return nil, errors.New("authn: Join needs a Verifier")
	}
	seen := map[string]bool{}
	for _, v := range verifiers {
		if v == nil || v.cfg.Issuer == "" || seen[v.cfg.Issuer] {
			return nil, errors.New("authn: Join: each Verifier needs an Issuer of its own")
		}
		seen[v.cfg.Issuer] = true
	}
	first := verifiers[0].cfg
	cfg := VerifierConfig{Logger: first.Logger, MeterProvider: first.MeterProvider}
	for _, v := range verifiers {
		cfg.APIKeys = cmp.Or(cfg.APIKeys, v.cfg.APIKeys)
	}
	v := &Verifier{joined: verifiers, cfg: cfg}
	return v, v.instrument()
}

func (v *Verifier) instrument() error {
	v.cfg.Logger = cmp.Or(v.cfg.Logger, slog.Default())
	v.cfg.MeterProvider = cmp.Or(v.cfg.MeterProvider, otel.GetMeterProvider())
	var err error
	v.refused, err = v.cfg.MeterProvider.Meter(scope).Int64Counter("sillar.authn.refused",
		metric.WithUnit("{token}"), metric.WithDescription("Tokens that were refused, by reason."))
	if err != nil {
		return fmt.Errorf("authn: make the counter: %w", err)
	}
	return nil
}

// Verify checks a token and returns its user. The error is a *TokenError, or matches ErrUnavailable.
func (v *Verifier) Verify(ctx context.Context, token string) (*User, error) {
	u, err := v.verify(ctx, token)
	if err != nil {
		v.recordRefusal(ctx, err)
		return nil, err
	}
	return u, nil
}

// Authenticate is Verify in builtin types, for packages that do not import this one. bearer is the token without its
// scheme. Errors about the token have a Challenge() string; those that match ErrUnavailable have a Temporary()
// bool.
func (v *Verifier) Authenticate(
	ctx context.Context,
	bearer string,
) (subject string, roles []string, claims map[string]any, err error) {
	if bearer == "" {
		return "", nil, nil, missing
	}
	u, err := v.Verify(ctx, bearer)
	if err != nil {
		return "", nil, nil, err
	}
	return u.ID, u.Roles, u.Claims, nil
}

func (v *Verifier) recordRefusal(ctx context.Context, err error) {
	reason := "unavailable"
	if t, ok := errors.AsType[*TokenError](err); ok {
		reason = t.Reason
		v.cfg.Logger.InfoContext(ctx, "authn: token refused", "reason", reason)
	} else {
		v.cfg.Logger.ErrorContext(ctx, "authn: tokens cannot be verified", "error", err)
	}
	v.refused.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

func (v *Verifier) verify(ctx context.Context, token string) (*User, error) {
	if v.cfg.APIKeys != nil && v.cfg.APIKeys.issued(token) {
		return v.cfg.APIKeys.Verify(ctx, token)
	}
	if v.joined != nil {
		member, err := v.choose(token)
		if err != nil {
			return nil, err
		}
		return member.verify(ctx, token)
	}
	if v.keys == nil {
		return nil, refuse("not an API key")
	}
	c := v.cache.get(token)
	var err error
	if c == nil {
		if c, err = v.verifyNew(ctx, token); err != nil {
			return nil, err
		}
		defer func() {
			if err == nil {
				v.cache.put(token, c)
			}
		}()
	} else if err = v.hasKey(ctx, c); err != nil {
		return nil, err
	}
	if err = v.current(ctx, c); err != nil {
		return nil, err
	}
	return c.user(), nil
}

// choose returns the joined Verifier whose issuer the token names.
func (v *Verifier) choose(token string) (*Verifier, error) {
	for _, member := range v.joined {
		if member.cache.get(token) != nil {
			return member, nil
		}
	}
	j, err := split(token)
	if err != nil {
		return nil, err
	}
	all, err := strictObject(j.payload)
	if err != nil {
		return nil, refuse("payload is not strict JSON")
	}
	for _, member := range v.joined {
		if all["iss"] == member.cfg.Issuer {
			return member, nil
		}
	}
	return nil, invalidClaim("iss", "another issuer")
}

// verifyNew checks everything about a token that does not depend on the time.
func (v *Verifier) verifyNew(ctx context.Context, token string) (*claims, error) {
	j, err := split(token)
	if err != nil {
		return nil, err
	}
	if !plainType(j.typ, v.cfg.Types) {
		return nil, refuse("type")
	}
	if cty, ok := j.header["cty"].(string); ok && strings.HasSuffix(strings.ToLower(cty), "jwt") {
		return nil, refuse("nested token")
	}
	keys, err := v.candidates(ctx, j.kid, Algorithm(j.alg))
	if err != nil {
		return nil, err
	}
	var key VerifyKey
	for _, key = range keys {
		if err = j.check(key); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	c, err := v.readClaims(j.payload)
	if err != nil {
		return nil, err
	}
	c.key, c.kid = key, j.kid
	return c, nil
}

// hasKey checks that the key of a remembered token is still among the keys.
func (v *Verifier) hasKey(ctx context.Context, c *claims) error {
	keys, err := v.candidates(ctx, c.kid, c.key.Algorithm)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(keys, c.key.equal) {
		return refuse("signature") // the id names another key now
	}
	return nil
}

func (v *Verifier) candidates(ctx context.Context, kid string, alg Algorithm) ([]VerifyKey, error) {
	keys, err := v.keys.Keys(ctx, kid, alg)
	switch {
	case err == nil && len(keys) > 0:
		return keys, nil
	case err == nil, errors.Is(err, ErrUnknownKey):
		return nil, &TokenError{Reason: "unknown key", Err: ErrUnknownKey}
	case errors.Is(err, ErrUnavailable):
		return nil, err
	}
	return nil, unavailable("find the key", err)
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
		return unavailable("look up the revocation", err)
	}
	if revoked {
		return &TokenError{Reason: "revoked", Err: ErrRevoked}
	}
	return nil
}

// addressed reports whether one of the token's audiences is one of ours.
func (v *Verifier) addressed(aud []string) bool {
	return len(v.cfg.Audience) == 0 ||
		slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(v.cfg.Audience, a) })
}
