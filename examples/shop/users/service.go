package users

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging/cqrs"
	"github.com/sillar-go/sillar/repository"
)

// New makes the users service. Its signing keys are published at /.well-known/jwks.json. With Config.KeysSecret they
// are kept in its database, where replicas share them; else in Config.Data, or in memory, for one process.
func New(ctx context.Context, cfg platform.Config) (*platform.Service, error) {
	keys := &signingKeys{}
	cfg.Tokens.Keys = keys
	return platform.Make(ctx, cfg, func(ctx context.Context, s *platform.Service) error { return build(ctx, s, keys) })
}

// signingKeys are set once the database is open, before anything is served: the guard of the service is made earlier.
type signingKeys struct{ *authn.KeySet }

// Keys implements authn.KeySource.
func (k *signingKeys) Keys(ctx context.Context, id string, alg authn.Algorithm) ([]authn.VerifyKey, error) {
	if k.KeySet == nil {
		return nil, authn.ErrUnavailable
	}
	return k.KeySet.Keys(ctx, id, alg)
}

func build(ctx context.Context, s *platform.Service, keys *signingKeys) error {
	st, err := open(ctx, s)
	if err != nil {
		return err
	}
	if keys.KeySet, err = authn.NewKeySet(st.keys, authn.KeyConfig{Logger: s.Log}); err != nil {
		return err
	}
	passwords, err := authn.NewPasswords(authn.PasswordConfig{})
	if err != nil {
		return err
	}
	cfg := cqrs.Config{Logger: s.Log, TracerProvider: s.Tel.TracerProvider, MeterProvider: s.Tel.MeterProvider}
	commands := NewCommands(st.users, events{st.outbox}, passwords, cfg)
	queries := NewQueries(st.users, cfg)

	issuer, err := authn.NewIssuer(keys.KeySet, st.tokens, authn.IssuerConfig{Issuer: platform.Issuer,
		Audience: []string{platform.Audience},
		TTL:      30 * time.Minute, OnRefresh: refreshed(st.users), Logger: s.Log})
	if err != nil {
		return err
	}
	s.Hourly("expired logins", func(ctx context.Context) (int64, error) {
		n, err := st.tokens.Purge(ctx, time.Now())
		return int64(n), err
	})
	s.Mux.Handle("POST /token", authn.TokenEndpoint(issuer, login(queries, st.users, passwords),
		authn.TokenEndpointConfig{Address: clientAddress, Logger: s.Log}))
	s.Mux.Handle("GET /.well-known/jwks.json", keys.Handler())
	api(s, commands, queries)
	if err := serveGRPC(s, commands, queries); err != nil {
		return err
	}
	return seed(ctx, commands, s.Users)
}

// seed makes the users that do not exist yet.
func seed(ctx context.Context, c *Commands, users []platform.SeedUser) error {
	for _, u := range users {
		_, err := c.Create.Handle(ctx, CreateUser{Username: u.Username, Email: u.Email, Password: u.Password, Roles: u.Roles})
		if err != nil && !errors.Is(err, repository.ErrUnique) {
			return fmt.Errorf("make the user %s: %w", u.Username, err)
		}
	}
	return nil
}

// clientAddress is the address that login attempts are counted by. The gateway, which is near, says whose they are.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsLoopback() || ip.IsPrivate()) {
		if list := strings.Split(r.Header.Get("X-Forwarded-For"), ","); list[0] != "" {
			return strings.TrimSpace(list[len(list)-1])
		}
	}
	return host
}
