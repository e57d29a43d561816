package authn_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/sillar-go/sillar/authn"
)

func Example() {
	ctx := context.Background()
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	tokens := authn.NewMemoryTokens()
	issuer := authn.Must(authn.NewIssuer(keys, tokens,
		authn.IssuerConfig{Issuer: "https://shop", Audience: []string{"shop"}}))
	v := authn.Must(authn.NewVerifier(keys,
		authn.VerifierConfig{Issuer: "https://shop", Audience: []string{"shop"}, Revocations: tokens}))

	mux := http.NewServeMux()
	mux.Handle("GET /users/me", authn.Require(v)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := authn.FromContext(r.Context())
		fmt.Fprint(w, "hello ", user.ID)
	})))
	mux.Handle("GET /admin/users", authn.Require(v, authn.AnyRole("admin"))(http.NotFoundHandler()))

	pair, err := issuer.Issue(ctx, authn.Subject{ID: "ana", Roles: []string{"user"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, path := range []string{"/users/me", "/admin/users"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+pair.AccessToken)
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, r)
		fmt.Printf("%d %q\n", rec.Code, rec.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// 200 ""
	// 403 "Bearer error=\"insufficient_scope\""
}

func ExamplePasswords() {
	ctx := context.Background()
	p := authn.Must(authn.NewPasswords(authn.PasswordConfig{}))
	hash, err := p.Hash(ctx, "correct horse battery staple")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(hash[:30])
	_, err = p.Verify(ctx, hash, "wrong")
	fmt.Println(err)
	_, err = p.Verify(ctx, "", "the user does not exist")
	fmt.Println(err)
	// Output:
	// $argon2id$v=19$m=19456,t=2,p=1
	// authn: wrong password
	// authn: wrong password
}

func ExampleTokenEndpoint() {
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "https://shop"}))
	login := func(_ context.Context, username, password string) (authn.Subject, error) {
		if username != "ana" || password != "secret" { // a program asks its users' repository and authn.Passwords
			return authn.Subject{}, authn.ErrPassword
		}
		return authn.Subject{ID: "u1"}, nil
	}
	mux := http.NewServeMux()
	mux.Handle("POST /token", authn.TokenEndpoint(issuer, login, authn.TokenEndpointConfig{}))
	mux.Handle("GET /.well-known/jwks.json", keys.Handler())
	fmt.Println(len(keys.JWKS()) > 0)
	// Output: true
}

func ExampleKeySet_Rotate() {
	ctx := context.Background()
	store := authn.NewMemoryKeys() // replicas share a file, a database or a Vault
	keys := authn.Must(authn.NewKeySet(store, authn.KeyConfig{PublishAhead: -1, Logger: quiet}))
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "https://shop"}))
	v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "https://shop"}))

	before, err := issuer.Issue(ctx, authn.Subject{ID: "ana"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := keys.Rotate(ctx); err != nil { // by itself every 30 days; for a key that has leaked there is Remove
		fmt.Println(err)
		return
	}
	after, err := issuer.Issue(ctx, authn.Subject{ID: "ana"})
	if err != nil {
		fmt.Println(err)
		return
	}
	header := func(p authn.TokenPair) string { head, _, _ := strings.Cut(p.AccessToken, "."); return head }
	fmt.Println("signed by the same key:", header(before) == header(after))
	for _, p := range []authn.TokenPair{before, after} {
		user, err := v.Verify(ctx, p.AccessToken)
		fmt.Println(user.ID, err)
	}
	// Output:
	// signed by the same key: false
	// ana <nil>
	// ana <nil>
}

// A page lists the devices on which a user is logged in, and ends one of the sessions.
func ExampleIssuer_Sessions() {
	ctx := context.Background()
	issuer, _ := exampleIssuer()
	for _, device := range []string{"phone", "laptop"} {
		if _, err := issuer.Issue(ctx, authn.Subject{ID: "ana", Claims: map[string]any{"device": device}}); err != nil {
			fmt.Println(err)
			return
		}
	}
	sessions, err := issuer.Sessions(ctx, "ana")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range sessions {
		if s.Subject.Claims["device"] == "phone" {
			err = issuer.RevokeSession(ctx, "ana", s.ID)
		}
	}
	left, _ := issuer.Sessions(ctx, "ana")
	fmt.Println(len(sessions), left[0].Subject.Claims["device"], err)
	// Output: 2 laptop <nil>
}
