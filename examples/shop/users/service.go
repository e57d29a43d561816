package users

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging/cqrs"
	"github.com/sillar-go/sillar/observability"
	"github.com/sillar-go/sillar/repository"
)

// New makes the users service. Its signing keys are kept in Config.Data, or else as long as the process lives, and
// published at /.well-known/jwks.json.
func New(ctx context.Context, cfg platform.Config) (*platform.Service, error) {
	var store authn.KeyStore = authn.NewMemoryKeys()
	if cfg.Data != "" {
		store = authn.NewFileKeys(filepath.Join(cfg.Data, "users-keys.json"))
	}
	log := observability.NewLogHandler(cmp.Or[io.Writer](cfg.LogWriter, os.Stdout), observability.LogConfig{Service: cfg.Name})
	keys, err := authn.NewKeySet(store, authn.KeyConfig{Logger: slog.New(log)})
	if err != nil {
		return nil, err
	}
	cfg.Tokens.Keys = keys
	return platform.Make(ctx, cfg, func(ctx context.Context, s *platform.Service) error { return build(ctx, s, keys) })
}

func build(ctx context.Context, s *platform.Service, keys *authn.KeySet) error {
	st, err := open(ctx, s)
	if err != nil {
		return err
	}
	passwords, err := authn.NewPasswords(authn.PasswordConfig{})
	if err != nil {
		return err
	}
	cfg := cqrs.Config{Logger: s.Log, TracerProvider: s.Tel.TracerProvider, MeterProvider: s.Tel.MeterProvider}
	commands := NewCommands(st.users, events{st.outbox}, passwords, cfg)
	queries := NewQueries(st.users, cfg)

	issuer, err := authn.NewIssuer(keys, st.tokens, authn.IssuerConfig{Issuer: platform.Issuer, Audience: []string{platform.Audience},
		TTL: 30 * time.Minute, OnRefresh: refreshed(st.users), Logger: s.Log})
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
