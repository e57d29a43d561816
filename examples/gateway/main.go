// Command gateway is an API gateway in front of two services: it verifies tokens that the users service issues, admits
// callers by their roles, limits each of them, and takes an instance that fails out of rotation.
//
//	go run ./examples/gateway
//	T=$(curl -s localhost:8080/users/token -d grant_type=password -d username=ana -d password=secret | grep -oE 'eyJ[^"]+')
//	curl -s -H "Authorization: Bearer $T" localhost:8080/stock/lamps
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/gateway"
	"github.com/sillar-go/sillar/observability/service"
)

// issuer is the iss of all tokens, and audience what they are for.
const issuer, audience = "https://shop.example", "shop"

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		fmt.Println("listening on http://" + l.Addr().String())
		err = run(context.Background(), l)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, l net.Listener) error {
	// The users service issues tokens, and publishes the keys that verify them.
	keys, err := authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{}) // replicas share keys with authn/sqlkeys
	if err != nil {
		return err
	}
	tokens := authn.NewMemoryTokens()
	issue, err := authn.NewIssuer(keys, tokens, authn.IssuerConfig{Issuer: issuer, Audience: []string{audience}})
	if err != nil {
		return err
	}
	login := func(_ context.Context, username, password string) (authn.Subject, error) {
		if username != "ana" || password != "secret" { // a real one compares with authn.Passwords
			return authn.Subject{}, authn.ErrPassword
		}
		return authn.Subject{ID: "u1", Roles: []string{"customer"}}, nil
	}
	users := http.NewServeMux()
	users.Handle("POST /token", authn.TokenEndpoint(issue, login, authn.TokenEndpointConfig{}))
	users.Handle("GET /.well-known/jwks.json", keys.Handler())
	usersURL, closeUsers, err := serve(users)
	if err != nil {
		return err
	}
	defer closeUsers()

	// The stock service has two instances, of which one is broken. It finds the caller in headers that only the gateway
	// sets.
	stock := func(broken bool) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken {
				http.Error(w, "out of order", http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = fmt.Fprintf(w, "%s for %s: 7 left\n", r.URL.Path, r.Header.Get("X-User-ID")) //nolint:gosec // plain text
		})
	}
	good, closeGood, err := serve(stock(false))
	if err != nil {
		return err
	}
	defer closeGood()
	bad, closeBad, err := serve(stock(true))
	if err != nil {
		return err
	}
	defer closeBad()

	verifier, err := authn.NewVerifier(keys, authn.VerifierConfig{ // another process reads the keys with authn/jwks
		Issuer: issuer, Audience: []string{audience}, Revocations: tokens,
	})
	if err != nil {
		return err
	}
	gw, err := gateway.New(gateway.Config{
		Auth: verifier,
		Routes: []gateway.Route{
			{Prefix: "/users", Upstreams: []string{usersURL}, Public: []string{"POST /token", "GET /.well-known/**"}},
			{
				Prefix: "/stock", Upstreams: []string{good, bad}, Roles: []string{"customer"},
				Timeout: 5 * time.Second, RateLimit: &gateway.RateLimit{Rate: 50, Burst: 100, BySubject: true},
			},
		},
	})
	if err != nil {
		return err
	}
	defer gw.CloseIdleConnections()
	srv := gateway.NewServer("", gw)
	edge := service.Must(service.New(service.Config{Name: "gateway", Logger: slog.New(slog.DiscardHandler)}))
	edge.Go("health of instances", gw.Run)
	edge.Serve("http", func() error { return srv.Serve(l) }, srv.Shutdown)
	return edge.Run(ctx)
}

// serve serves a handler on a free port of this machine.
func serve(h http.Handler) (url string, closeServer func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // it returns when it is closed
	return "http://" + l.Addr().String(), func() { _ = srv.Close() }, nil
}
