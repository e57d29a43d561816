package platform

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
)

// RoleService is the role of the shop's own services. No user can have it.
const RoleService = "service"

// Issuer and Audience of users' tokens.
const (
	Issuer   = "https://shop.sillar.dev"
	Audience = "shop"
	internal = "shop-internal"
)

// Tokens says which tokens are accepted: users', which the users service signs, and the shop's services' own, which
// they sign with a secret that they share.
type Tokens struct {
	// JWKS is where the users service publishes its keys. Keys takes its place inside the users service.
	JWKS string
	Keys authn.KeySource
	// Insecure allows to read JWKS by http from other machines: a man in the middle could replace the keys.
	Insecure bool
	// Secret is what the services sign their own tokens with, at least 32 bytes.
	Secret []byte

	transport *http.Transport // for JWKS; nil: the default one
}

// Guard verifies tokens, and makes the service's own.
type Guard struct {
	name     string
	users    *authn.Verifier
	services *authn.Verifier
	all      *authn.Verifier // of users and services
	issuer   *authn.Issuer
	set      *jwks.Set

	transport *http.Transport // of set; nil: its own

	mu     sync.Mutex
	tokens map[string]ownToken // by role
}

type ownToken struct {
	token   string
	renewAt time.Time
}

// NewGuard returns the guard of a service. meters counts what it refuses; nil means the global provider.
func NewGuard(name string, cfg Tokens, log *slog.Logger, meters metric.MeterProvider) (*Guard, error) {
	g := &Guard{name: name, tokens: map[string]ownToken{}, transport: cfg.transport}
	keys := cfg.Keys
	if keys == nil {
		from := jwks.Config{Logger: log, Refresh: time.Minute, MinInterval: time.Second, Insecure: cfg.Insecure}
		if cfg.transport != nil {
			from.Client = &http.Client{Transport: cfg.transport, Timeout: 10 * time.Second}
		}
		set, err := jwks.New(cfg.JWKS, from)
		if err != nil {
			return nil, err
		}
		g.set, keys = set, set
	}
	own, err := authn.NewSecretKeySet(cfg.Secret)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	var err1, err2, err3 error
	g.users, err1 = authn.NewVerifier(keys, authn.VerifierConfig{Issuer: Issuer, Audience: []string{Audience}, Logger: log,
		MeterProvider: meters})
	g.services, err2 = authn.NewVerifier(own, authn.VerifierConfig{Issuer: internal, Audience: []string{internal},
		Logger: log, MeterProvider: meters})
	g.issuer, err3 = authn.NewIssuer(own, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: internal,
		Audience: []string{internal}, TTL: 10 * time.Minute, Logger: log})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	if g.all, err = authn.Join(g.services, g.users); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Users verifies tokens of users only, for the gateway.
func (g *Guard) Users() *authn.Verifier { return g.users }

// Services verifies the services' own tokens only.
func (g *Guard) Services() *authn.Verifier { return g.services }

// Check verifies a token of either kind, a user's or a service's.
func (g *Guard) Check(ctx context.Context, authorization []string,
	requirements ...authn.Requirement) (*authn.User, error) {
	return authn.Check(ctx, g.all, authorization, requirements...)
}

// Token returns the service's own token, renewed in time.
func (g *Guard) Token(ctx context.Context) (string, error) { return g.own(ctx, RoleService) }

// OperatorToken returns a token with which the service acts as an administrator towards the other services. The gateway
// accepts it as little as any other token of a service.
func (g *Guard) OperatorToken(ctx context.Context) (string, error) { return g.own(ctx, "admin") }

func (g *Guard) own(ctx context.Context, role string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.tokens[role]; time.Now().Before(t.renewAt) {
		return t.token, nil
	}
	pair, err := g.issuer.Issue(ctx, authn.Subject{ID: "service:" + g.name, Roles: []string{role}})
	if err != nil {
		return "", err
	}
	g.tokens[role] = ownToken{pair.AccessToken, time.Now().Add(5 * time.Minute)}
	return pair.AccessToken, nil
}

// Close ends the reading of keys.
func (g *Guard) Close() error {
	var err error
	if g.set != nil {
		err = g.set.Close()
	}
	if g.transport != nil {
		g.transport.CloseIdleConnections()
	}
	return err
}
