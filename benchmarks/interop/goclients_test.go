package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
)

// go-oidc finds our keys from the URL of the issuer and verifies our access tokens.
func TestOurTokensInGoOIDC(t *testing.T) {
	for _, alg := range []authn.Algorithm{authn.EdDSA, authn.ES256, authn.RS256} {
		s := serve(t, alg)
		provider, err := oidc.NewProvider(t.Context(), s.URL)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if got := provider.Endpoint().TokenURL; got != s.URL+"/token" {
			t.Errorf("%s: got the token endpoint %q", alg, got)
		}
		pair, err := s.issuer.Issue(t.Context(), authn.Subject{ID: "ana", Roles: []string{"user"}})
		if err != nil {
			t.Fatal(err)
		}
		token, err := provider.Verifier(&oidc.Config{ClientID: audience}).Verify(t.Context(), pair.AccessToken)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		var claims struct{ Roles []string }
		if err := token.Claims(&claims); err != nil || token.Subject != "ana" || len(claims.Roles) != 1 {
			t.Errorf("%s: got %s with %v, %v", alg, token.Subject, claims.Roles, err)
		}
		if _, err := provider.Verifier(&oidc.Config{ClientID: "another"}).Verify(t.Context(), pair.AccessToken); err == nil {
			t.Errorf("%s: a token for another audience is accepted: the test proves nothing", alg)
		}
	}
}

// Tokens of go-oidc's test server are verified here, from the URL of its issuer: ID tokens only where they are wanted.
func TestGoOIDCTokensHere(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	theirs := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k1",
		Algorithm: oidc.ES256}}}
	srv := httptest.NewServer(theirs)
	defer srv.Close()
	theirs.SetIssuer(srv.URL)
	set, err := jwks.Discover(srv.URL, jwks.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	token := oidctest.SignIDToken(key, "k1", oidc.ES256, fmt.Sprintf(
		`{"iss":%q,"aud":%q,"sub":"theirs","exp":%d,"at_hash":"x"}`, srv.URL, audience, time.Now().Add(time.Minute).Unix()))
	cfg := authn.VerifierConfig{Issuer: srv.URL, Audience: []string{audience}, Logger: quiet}
	if _, err := authn.Must(authn.NewVerifier(set, cfg)).Verify(t.Context(), token); !errors.Is(err, authn.ErrToken) {
		t.Errorf("an ID token as an access token: got %v, want ErrToken", err)
	}
	cfg.IDTokens = true
	u, err := authn.Must(authn.NewVerifier(set, cfg)).Verify(t.Context(), token)
	if err != nil || u.ID != "theirs" {
		t.Errorf("got %+v, %v, want the user theirs", u, err)
	}
}

// golang.org/x/oauth2 gets, refreshes and uses our tokens, and understands our errors.
func TestXOAuth2(t *testing.T) {
	s := serve(t, authn.EdDSA)
	conf := &oauth2.Config{ClientID: "web", Endpoint: oauth2.Endpoint{TokenURL: s.URL + "/token"}}
	me := func(c *http.Client) string {
		t.Helper()
		res, err := c.Get(s.URL + "/me")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("got %d, %v, want 200", res.StatusCode, err)
		}
		return string(body)
	}
	token, err := conf.PasswordCredentialsToken(t.Context(), "ana", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	first := token.RefreshToken
	token.Expiry = time.Now().Add(-time.Second)
	if got := me(conf.Client(t.Context(), token)); got != "ana" {
		t.Errorf("after a refresh: got %q, want ana", got)
	}
	if token, err = conf.TokenSource(t.Context(), &oauth2.Token{RefreshToken: first}).Token(); err != nil ||
		token.RefreshToken == first {
		t.Errorf("within the grace: got the same token or %v", err)
	}
	res, err := http.PostForm(s.URL+"/revoke", url.Values{"client_id": {"web"}, "token": {token.RefreshToken}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	expectCode(t, "a revoked token", "invalid_grant", func(ctx context.Context) error {
		_, err := conf.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
		return err
	})
	expectCode(t, "a wrong password", "invalid_grant", func(ctx context.Context) error {
		_, err := conf.PasswordCredentialsToken(ctx, "ana", "wrong")
		return err
	})
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader,
		oauth2.AuthStyleInParams} {
		robot := clientcredentials.Config{
			ClientID: "robot", ClientSecret: "s3cr3t:/+%", TokenURL: s.URL + "/token", Scopes: []string{"read", "write"},
			AuthStyle: style,
		}
		token, err := robot.Token(t.Context())
		if err != nil {
			t.Fatalf("style %d: %v", style, err)
		}
		if got := me(robot.Client(t.Context())); got != "robot" || token.RefreshToken != "" {
			t.Errorf("style %d: got %q", style, got)
		}
		u, err := s.verifier.Verify(t.Context(), token.AccessToken)
		if err != nil || strings.Join(u.Scopes, " ") != "read write" {
			t.Errorf("style %d: got %+v, %v, want both scopes", style, u, err)
		}
		robot.Scopes = []string{"admin"}
		expectCode(t, "a scope that is refused", "invalid_scope", func(ctx context.Context) error {
			_, err := robot.Token(ctx)
			return err
		})
		robot.ClientSecret = "wrong"
		expectCode(t, "a wrong secret", "invalid_client", func(ctx context.Context) error {
			_, err := robot.Token(ctx)
			return err
		})
	}
}

func expectCode(t *testing.T, what, want string, call func(context.Context) error) {
	t.Helper()
	err := call(t.Context())
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); !ok || e.ErrorCode != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}
