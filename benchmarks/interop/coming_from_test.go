package interop

// The code of docs/coming-from-golang-jwt.md: each part before, with the library that the page is about, and after. The
// tests run both and compare what they do.

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/go-chi/jwtauth/v5"
	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
)

const issuerURL = "https://shop.example"

// Claims are the claims of a program that uses golang-jwt.
type Claims struct {
	jwt.RegisteredClaims
	Tenant string   `json:"tenant"`
	Roles  []string `json:"roles"`
}

func issueBefore(secret []byte, user string, roles []string) (string, error) {
	claims := Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    issuerURL,
			Subject:   user,
			Audience:  jwt.ClaimStrings{"orders"},
			ExpiresAt: jwt.NewNumericDate(time.Now().Add(30 * time.Minute)),
		},
		Tenant: "acme",
		Roles:  roles,
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
}

func issueAfter(ctx context.Context, secret []byte, user string, roles []string) (string, error) {
	keys, err := authn.NewSecretKeySet(secret)
	if err != nil {
		return "", err
	}
	issuer, err := authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{
		Issuer:   issuerURL,
		Audience: []string{"orders"},
		TTL:      30 * time.Minute,
	})
	if err != nil {
		return "", err
	}
	pair, err := issuer.IssueAccess(ctx, authn.Subject{
		ID:     user,
		Roles:  roles,
		Claims: map[string]any{"tenant": "acme"},
	})
	return pair.AccessToken, err
}

func verifyBefore(secret []byte, token string) (*Claims, error) {
	claims := &Claims{}
	_, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), // without it the token chooses
		jwt.WithIssuer(issuerURL),               // without it any issuer
		jwt.WithAudience("orders"),              // without it any audience
		jwt.WithExpirationRequired(),            // without it tokens may live forever
	)
	return claims, err
}

func newVerifierAfter(secret []byte) (*authn.Verifier, error) {
	keys, err := authn.NewSecretKeySet(secret)
	if err != nil {
		return nil, err
	}
	return authn.NewVerifier(keys, authn.VerifierConfig{
		Issuer:   issuerURL,
		Audience: []string{"orders"},
	})
}

func verifyAfter(ctx context.Context, v *authn.Verifier, token string) (*authn.User, string, error) {
	user, err := v.Verify(ctx, token)
	if err != nil {
		return nil, "", err
	}
	claims, err := authn.ClaimsOf[struct {
		Tenant string `json:"tenant"`
	}](user)
	return user, claims.Tenant, err
}

func TestIssueAndVerifyBeforeAndAfter(t *testing.T) {
	secret := []byte(sharedSecret)
	v, err := newVerifierAfter(secret)
	if err != nil {
		t.Fatal(err)
	}
	before, err1 := issueBefore(secret, "ana", []string{"user"})
	after, err2 := issueAfter(t.Context(), secret, "ana", []string{"user"})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"issued before": before, "issued after": after} {
		claims, err := verifyBefore(secret, token)
		if err != nil || claims.Subject != "ana" || claims.Tenant != "acme" || claims.Roles[0] != "user" {
			t.Errorf("%s, verified before: got %+v, %v", name, claims, err)
		}
		user, tenant, err := verifyAfter(t.Context(), v, token)
		if err != nil || user.ID != "ana" || tenant != "acme" || !user.HasAnyRole("user") {
			t.Errorf("%s, verified after: got %+v, %q, %v", name, user, tenant, err)
		}
	}
	if _, err := verifyBefore(secret, before+"x"); err == nil {
		t.Error("before: a changed token is accepted")
	}
	if _, _, err := verifyAfter(t.Context(), v, before+"x"); !errors.Is(err, authn.ErrToken) {
		t.Errorf("after: a changed token: got %v, want ErrToken", err)
	}
}

func keySetBefore(ctx context.Context, url, token string) (*jwt.Token, error) {
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{url})
	if err != nil {
		return nil, err
	}
	return jwt.Parse(token, keys.Keyfunc, jwt.WithIssuer(issuerURL), jwt.WithAudience("orders"),
		jwt.WithExpirationRequired())
}

func keySetAfter(url string) (*authn.Verifier, func() error, error) {
	keys, err := jwks.New(url, jwks.Config{}) // or jwks.Discover(issuerURL, jwks.Config{})
	if err != nil {
		return nil, nil, err
	}
	v, err := authn.NewVerifier(keys, authn.VerifierConfig{
		Issuer:   issuerURL,
		Audience: []string{"orders"},
	})
	return v, keys.Close, err
}

func TestKeySetBeforeAndAfter(t *testing.T) {
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Algorithm: authn.ES256, Logger: quiet}))
	srv := httptest.NewServer(keys.Handler())
	defer srv.Close()
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{
		Issuer: issuerURL, Audience: []string{"orders"}, Logger: quiet,
	}))
	pair, err := issuer.Issue(t.Context(), authn.Subject{ID: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := keySetBefore(t.Context(), srv.URL, pair.AccessToken)
	if err != nil || !token.Valid {
		t.Errorf("before: got %v, %v", token, err)
	}
	v, closeKeys, err := keySetAfter(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeKeys() }()
	if u, err := v.Verify(t.Context(), pair.AccessToken); err != nil || u.ID != "ana" {
		t.Errorf("after: got %+v, %v", u, err)
	}
}

func routesBefore(secret []byte, handler http.Handler) http.Handler {
	auth := jwtauth.New("HS256", secret, nil)
	return jwtauth.Verifier(auth)(jwtauth.Authenticator(auth)(handler))
}

func handlerBefore(w http.ResponseWriter, r *http.Request) {
	_, claims, err := jwtauth.FromContext(r.Context())
	if err != nil {
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	subject, _ := claims["sub"].(string)
	_, _ = w.Write([]byte(subject))
}

func routesAfter(v *authn.Verifier, handler http.Handler) http.Handler {
	return authn.Require(v, authn.AnyRole("user"))(handler)
}

func handlerAfter(w http.ResponseWriter, r *http.Request) {
	user, _ := authn.FromContext(r.Context()) // Require admits no request without one
	_, _ = w.Write([]byte(user.ID))
}

func TestMiddlewareBeforeAndAfter(t *testing.T) {
	secret := []byte(sharedSecret)
	v, err := newVerifierAfter(secret)
	if err != nil {
		t.Fatal(err)
	}
	good, err := issueBefore(secret, "ana", []string{"user"})
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]http.Handler{
		"before": routesBefore(secret, http.HandlerFunc(handlerBefore)),
		"after":  routesAfter(v, http.HandlerFunc(handlerAfter)),
	} {
		for header, want := range map[string]int{"Bearer " + good: 200, "Bearer " + good + "x": 401, "": 401} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code != want || want == 200 && rec.Body.String() != "ana" {
				t.Errorf("%s: got %d %q, want %d", name, rec.Code, rec.Body, want)
			}
		}
	}
}

// The differences that the page lists: what golang-jwt accepts by default and authn refuses.
func TestWhatIsRefusedThatWasAccepted(t *testing.T) {
	secret := []byte(sharedSecret)
	v, err := newVerifierAfter(secret)
	if err != nil {
		t.Fatal(err)
	}
	base := func() jwt.MapClaims {
		return jwt.MapClaims{"iss": issuerURL, "sub": "ana", "aud": "orders", "exp": time.Now().Add(time.Minute).Unix()}
	}
	for name, change := range map[string]func(jwt.MapClaims){
		"no exp":           func(c jwt.MapClaims) { delete(c, "exp") },
		"no sub":           func(c jwt.MapClaims) { delete(c, "sub") },
		"another issuer":   func(c jwt.MapClaims) { c["iss"] = "https://other.example" },
		"another audience": func(c jwt.MapClaims) { c["aud"] = "payments" },
		"an ID token":      func(c jwt.MapClaims) { c["at_hash"] = "x" },
		"bound to a key":   func(c jwt.MapClaims) { c["cnf"] = map[string]string{"jkt": "x"} },
		"valid in a year":  func(c jwt.MapClaims) { c["iat"] = time.Now().AddDate(1, 0, 0).Unix() },
	} {
		claims := base()
		change(claims)
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return secret, nil }); err != nil {
			t.Errorf("%s: golang-jwt without options: %v, the page says that it accepts", name, err)
		}
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, authn.ErrToken) {
			t.Errorf("%s: got %v, want ErrToken", name, err)
		}
	}
}
