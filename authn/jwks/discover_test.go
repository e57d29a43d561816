package jwks_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
)

var discoveryDocuments = map[string]struct {
	at      string // of the metadata
	path    string // of the issuer
	claimed string // the issuer in the metadata, when it is another
	want    bool
}{
	"OpenID Connect":          {at: "/.well-known/openid-configuration", want: true},
	"OpenID Connect, a realm": {at: "/realms/shop/.well-known/openid-configuration", path: "/realms/shop", want: true},
	"a final slash":           {at: "/.well-known/openid-configuration", path: "/", want: true},
	"RFC 8414":                {at: "/.well-known/oauth-authorization-server", want: true},
	"RFC 8414, a path": {at: "/.well-known/oauth-authorization-server/realms/shop", path: "/realms/shop",
		want: true},
	"another issuer": {at: "/.well-known/openid-configuration", claimed: "https://evil.test"},
	"nothing":        {at: "/elsewhere"},
}

// An issuer is discovered by its URL, in the ways of OpenID Connect and of RFC 8414, and by what authn publishes.
func TestDiscoverFindsKeysByIssuer(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	for name, c := range discoveryDocuments {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			srv := httptest.NewServer(mux)
			defer srv.Close()
			issuer := srv.URL + c.path
			claimed := issuer
			if c.claimed != "" {
				claimed = c.claimed
			}
			i := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: claimed,
				Audience: []string{"shop"}, Logger: quiet}))
			mux.Handle("/keys", keys.Handler())
			mux.Handle(c.at, i.Metadata(authn.MetadataConfig{JWKSURI: srv.URL + "/keys", TokenEndpoint: srv.URL + "/token"}))
			set := jwks.Must(jwks.Discover(issuer, jwks.Config{Logger: quiet}))
			defer set.Close()
			v := authn.Must(authn.NewVerifier(set, authn.VerifierConfig{Issuer: claimed, Audience: []string{"shop"},
				Logger: quiet}))
			pair, err := i.Issue(t.Context(), authn.Subject{ID: "u1"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = v.Verify(t.Context(), pair.AccessToken)
			if c.want && err != nil || !c.want && !errors.Is(err, authn.ErrUnavailable) {
				t.Errorf("got %v, want verified: %v", err, c.want)
			}
		})
	}
}

// Metadata may not lead from a trusted issuer to keys over plain http, and they are read again when the keys have
// moved.
func TestDiscoverFollowsTheIssuer(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	var uri atomic.Value
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, srv.URL, uri.Load())
	})
	mux.Handle("/new", keys.Handler())
	uri.Store("http://keys.evil.test/keys")
	var log strings.Builder
	set := jwks.Must(jwks.Discover(srv.URL, jwks.Config{MinInterval: time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	defer set.Close()
	const id = "" // of a token without one
	if _, err := set.Keys(t.Context(), id, authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("keys over plain http: got %v, want ErrUnavailable", err)
	}
	for _, at := range []string{"/old", "/new"} { // the first answers 404
		uri.Store(srv.URL + at)
		deadline := time.Now().Add(5 * time.Second)
		for {
			found, err := set.Keys(t.Context(), id, authn.EdDSA)
			if at == "/new" && err == nil && len(found) == 1 {
				break
			}
			if at == "/old" && err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %d keys, %v", at, len(found), err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
