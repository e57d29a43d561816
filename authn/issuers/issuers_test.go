package issuers_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/issuers"
	"github.com/sillar-go/sillar/authn/jwks"
)

var quiet = slog.New(slog.DiscardHandler)

// key is a key of an issuer: what its set publishes, and how it signs.
type key struct {
	private crypto.Signer
	method  jwt.SigningMethod
	jwk     map[string]any
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rsaKey(t *testing.T, kid string, m jwt.SigningMethod, extra map[string]any) key {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	j := map[string]any{"kty": "RSA", "kid": kid, "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
	for name, v := range extra {
		j[name] = v
	}
	if kid == "" {
		delete(j, "kid")
	}
	return key{k, m, j}
}

func ecKey(t *testing.T, kid string, curve elliptic.Curve, m jwt.SigningMethod) key {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	half := (len(point) - 1) / 2
	return key{k, m, map[string]any{"kty": "EC", "kid": kid, "use": "sig", "crv": curve.Params().Name,
		"x": b64(point[1 : 1+half]), "y": b64(point[1+half:])}}
}

func edKey(t *testing.T, kid string) key {
	t.Helper()
	pub, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{k, jwt.SigningMethodEdDSA, map[string]any{"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": b64(pub)}}
}

// unusable are keys that stand beside good ones in real sets.
var unusable = []any{
	map[string]any{"kty": "RSA", "kid": "enc", "use": "enc", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB"},
	map[string]any{"kty": "AKP", "kid": "future", "alg": "ML-DSA-44", "pub": "AAAA"},
	map[string]any{"kty": "EC", "kid": "k256", "crv": "secp256k1", "x": "AA", "y": "AA"},
	map[string]any{"kty": "oct", "kid": "secret", "k": "AAAA"},
	"nonsense", nil,
}

func (k key) sign(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	tok := jwt.NewWithClaims(k.method, jwt.MapClaims(claims))
	delete(tok.Header, "typ")
	if kid, ok := k.jwk["kid"]; ok {
		tok.Header["kid"] = kid
	}
	for name, v := range header {
		tok.Header[name] = v
	}
	s, err := tok.SignedString(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// groups are as many as Entra writes into a token.
func groups(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
	}
	return all
}

type claims = map[string]any

// with returns claims with changes; nil removes one.
func with(c claims, changes claims) claims {
	out := claims{}
	for _, m := range []claims{c, changes} {
		for name, v := range m {
			if out[name] = v; v == nil {
				delete(out, name)
			}
		}
	}
	return out
}

// TestPresetsAcceptDocumentedTokensAndRefuseOthers accepts tokens of the shape that each issuer documents, with its
// preset, and refuses the same token for another audience, of another issuer, of another tenant, and as another kind of
// token.
func TestPresetsAcceptDocumentedTokensAndRefuseOthers(t *testing.T) {
	now := time.Now().Unix()
	const tenant = "11111111-2222-4333-8444-555555555555"
	table := newTable()
	entra := rsaKey(t, "entra", jwt.SigningMethodRS256, map[string]any{"use": "sig", "x5t": "entra",
		"x5c": []string{"MIIC"}})
	for name, c := range map[string]struct {
		cfg    authn.VerifierConfig
		key    key
		header map[string]any
		claims claims
		roles  []string
		scopes []string
		client string
	}{
		"Auth0": {
			issuers.Auth0("shop.eu.auth0.com", "https://api.shop"), rsaKey(t, "a0", jwt.SigningMethodRS256,
				map[string]any{"alg": "RS256", "use": "sig"}), claims{"typ": "JWT"},
			claims{"iss": "https://shop.eu.auth0.com/", "sub": "auth0|1", "aud": []string{"https://api.shop",
				"https://shop.eu.auth0.com/userinfo"}, "azp": "web", "scope": "openid read:orders",
				"permissions": []string{"read:orders"}},
			[]string{"read:orders"}, []string{"openid", "read:orders"}, "web",
		},
		"Auth0, RFC 9068 profile": {
			issuers.Auth0("shop.eu.auth0.com", "https://api.shop"), rsaKey(t, "a0", jwt.SigningMethodPS256,
				map[string]any{"alg": "PS256"}), claims{"typ": "at+jwt"},
			claims{"iss": "https://shop.eu.auth0.com/", "sub": "web@clients", "aud": "https://api.shop", "client_id": "web",
				"jti": "j", "scope": "read:orders"},
			nil, []string{"read:orders"}, "web",
		},
		"Okta": {
			issuers.Okta("https://shop.okta.com/oauth2/default", "api://default"), rsaKey(t, "okta", jwt.SigningMethodRS256,
				map[string]any{"alg": "RS256"}), nil,
			claims{"ver": 1, "jti": "AT.1", "iss": "https://shop.okta.com/oauth2/default", "aud": "api://default", "cid": "web",
				"uid": "u", "scp": []string{"orders", "profile"}, "sub": "ana@shop.test", "groups": []string{"Everyone", "admin"}},
			[]string{"Everyone", "admin"}, []string{"orders", "profile"}, "web",
		},
		"Okta, its own audience": {
			issuers.Okta("https://shop.okta.com", "https://shop.okta.com"), rsaKey(t, "okta", jwt.SigningMethodRS256, nil),
			claims{"typ": "application/okta-internal-at+jwt"},
			claims{"iss": "https://shop.okta.com", "aud": "https://shop.okta.com", "cid": "web", "sub": "ana@shop.test",
				"scp": []string{"openid"}},
			nil, []string{"openid"}, "web",
		},
		"Keycloak": {
			issuers.Keycloak("https://login.shop/realms/shop", "orders"), rsaKey(t, "kc", jwt.SigningMethodRS256,
				map[string]any{"alg": "RS256", "use": "sig"}), claims{"typ": "JWT"},
			claims{"typ": "Bearer", "azp": "web", "iss": "https://login.shop/realms/shop", "sub": "u",
				"aud": []string{"orders", "account"}, "acr": "1", "scope": "email profile",
				"realm_access":    claims{"roles": []string{"offline_access", "admin"}},
				"resource_access": claims{"account": claims{"roles": []string{"manage-account"}}}},
			[]string{"offline_access", "admin"}, []string{"email", "profile"}, "web",
		},
		"Keycloak before 17": {
			issuers.Keycloak("https://login.shop/auth/realms/shop", "orders"), ecKey(t, "kc", elliptic.P521(),
				jwt.SigningMethodES512), claims{"typ": "JWT"},
			claims{"typ": "Bearer", "nbf": 0, "auth_time": now, "nonce": "n", "session_state": "s", "azp": "web",
				"iss": "https://login.shop/auth/realms/shop", "sub": "u", "aud": "orders",
				"realm_access": claims{"roles": []string{"admin"}}},
			[]string{"admin"}, nil, "web",
		},
		"Keycloak, roles of a client": {
			withRoles(issuers.Keycloak("https://login.shop/realms/shop", "orders"), "resource_access.orders.roles"),
			rsaKey(t, "kc", jwt.SigningMethodRS256, map[string]any{"alg": "RS256", "use": "sig"}), claims{"typ": "JWT"},
			claims{"typ": "Bearer", "azp": "web", "iss": "https://login.shop/realms/shop", "sub": "u", "aud": "orders",
				"realm_access":    claims{"roles": []string{"offline_access"}},
				"resource_access": claims{"orders": claims{"roles": []string{"clerk"}}}},
			[]string{"clerk"}, nil, "web",
		},
		"Keycloak, a client id with dots": {
			withRoles(issuers.Keycloak("https://login.shop/realms/shop", "orders"), "resource_access.com.shop.orders.roles"),
			rsaKey(t, "kc", jwt.SigningMethodRS256, nil), claims{"typ": "JWT"},
			claims{"typ": "Bearer", "azp": "web", "iss": "https://login.shop/realms/shop", "sub": "u", "aud": "orders",
				"resource_access": claims{"com.shop.orders": claims{"roles": []string{"clerk"}}}},
			[]string{"clerk"}, nil, "web",
		},
		"any issuer, no roles as null": {
			issuers.EntraV2(tenant, "orders-id"), entra, claims{"typ": "JWT"},
			claims{"aud": "orders-id", "iss": "https://login.microsoftonline.com/" + tenant + "/v2.0", "sub": "u",
				"roles": json.RawMessage("null"), "scp": json.RawMessage("null")},
			nil, nil, "",
		},
		"Keycloak, one role by a mapper": {
			withRoles(issuers.Keycloak("https://login.shop/realms/shop", "orders"), "roles"),
			rsaKey(t, "kc", jwt.SigningMethodRS256, nil), claims{"typ": "JWT"},
			claims{"typ": "Bearer", "azp": "web", "iss": "https://login.shop/realms/shop", "sub": "u", "aud": "orders",
				"roles": "admin"},
			[]string{"admin"}, nil, "web",
		},
		"Auth0, roles of an Action": {
			withRoles(issuers.Auth0("login.shop.test", "https://api.shop"), "https://shop.test/roles"),
			rsaKey(t, "a0", jwt.SigningMethodRS256, map[string]any{"alg": "RS256"}), claims{"typ": "JWT"},
			claims{"iss": "https://login.shop.test/", "sub": "auth0|1", "aud": "https://api.shop", "azp": "web",
				"https://shop.test/roles": []string{"admin"}},
			[]string{"admin"}, nil, "web",
		},
		"Supabase, roles of the application": {
			withRoles(issuers.Supabase("https://abc.supabase.co"), "app_metadata.roles"), edKey(t, "sb"), claims{"typ": "JWT"},
			claims{"iss": "https://abc.supabase.co/auth/v1", "sub": "u", "aud": "authenticated", "role": "authenticated",
				"app_metadata": claims{"provider": "email", "roles": []string{"admin"}}},
			[]string{"admin"}, nil, "",
		},
		"Entra v1, 200 groups": {
			issuers.EntraV1(tenant, "api://orders"), entra, claims{"typ": "JWT", "x5t": "entra"},
			claims{"aud": "api://orders", "iss": "https://sts.windows.net/" + tenant + "/", "appid": "web", "sub": "u",
				"tid": tenant, "ver": "1.0", "scp": "access_as_user", "roles": []string{"admin"}, "groups": groups(200)},
			[]string{"admin"}, []string{"access_as_user"}, "web",
		},
		"Entra v2": {
			issuers.EntraV2(tenant, "orders-id"), entra, claims{"typ": "JWT"},
			claims{"aud": "orders-id", "iss": "https://login.microsoftonline.com/" + tenant + "/v2.0", "azp": "web",
				"azpacr": "1", "sub": "u", "tid": tenant, "ver": "2.0", "roles": []string{"admin"}, "aio": "x", "uti": "y"},
			[]string{"admin"}, nil, "web",
		},
		"Cognito": {
			issuers.Cognito("eu-west-1", "eu-west-1_abc", "web"), rsaKey(t, "cog", jwt.SigningMethodRS256,
				map[string]any{"alg": "RS256", "use": "sig"}), nil,
			claims{"sub": "u", "cognito:groups": []string{"admin"},
				"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc", "version": 2, "client_id": "web",
				"token_use": "access", "scope": "aws.cognito.signin.user.admin", "username": "ana"},
			[]string{"admin"}, []string{"aws.cognito.signin.user.admin"}, "web",
		},
		"Google": {
			issuers.Google("web.apps.googleusercontent.com"), rsaKey(t, "goog", jwt.SigningMethodRS256,
				map[string]any{"alg": "RS256"}), claims{"typ": "JWT"},
			claims{"iss": "https://accounts.google.com", "azp": "web", "aud": "web.apps.googleusercontent.com", "sub": "108",
				"at_hash": "h", "email": "ana@shop.test", "email_verified": true},
			nil, nil, "web",
		},
		"Firebase": {
			issuers.Firebase("shop-1"), rsaKey(t, "fb", jwt.SigningMethodRS256, map[string]any{"alg": "RS256", "use": "sig"}),
			claims{"typ": "JWT"},
			claims{"iss": "https://securetoken.google.com/shop-1", "aud": "shop-1", "auth_time": now, "user_id": "u", "sub": "u",
				"roles": "admin", "firebase": claims{"sign_in_provider": "password", "identities": claims{}}},
			[]string{"admin"}, nil, "",
		},
		"Supabase": {
			issuers.Supabase("https://abc.supabase.co/"), ecKey(t, "sb", elliptic.P256(), jwt.SigningMethodES256),
			claims{"typ": "JWT"},
			claims{"iss": "https://abc.supabase.co/auth/v1", "sub": "u", "aud": "authenticated", "role": "authenticated",
				"aal": "aal1", "session_id": "s", "app_metadata": claims{"provider": "email"}, "is_anonymous": false},
			[]string{"authenticated"}, nil, "",
		},
		"IdentityServer": {
			issuers.IdentityServer("https://id.shop", "orders"), rsaKey(t, "ids", jwt.SigningMethodRS384,
				map[string]any{"alg": "RS384", "use": "sig"}), claims{"typ": "at+jwt"},
			claims{"iss": "https://id.shop", "nbf": now, "aud": []string{"orders"}, "scope": []string{"openid", "orders"},
				"amr": []string{"pwd"}, "client_id": "web", "sub": "1", "role": []string{"admin", "user"}, "jti": "j"},
			[]string{"admin", "user"}, []string{"openid", "orders"}, "web",
		},
		"Ory": {
			issuers.Ory("https://hydra.shop/", "orders"), ecKey(t, "ory", elliptic.P384(), jwt.SigningMethodES384),
			claims{"typ": "JWT"},
			claims{"iss": "https://hydra.shop/", "aud": []string{"orders"}, "client_id": "web",
				"ext": claims{"roles": []string{"admin"}}, "sub": "u", "jti": "j", "scp": []string{"offline"}},
			[]string{"admin"}, []string{"offline"}, "web",
		},
		"Zitadel": {
			issuers.Zitadel("https://shop.zitadel.cloud", "4711"), rsaKey(t, "zit", jwt.SigningMethodRS256,
				map[string]any{"alg": "RS256", "use": "sig"}), claims{"typ": "JWT"},
			claims{"iss": "https://shop.zitadel.cloud", "aud": []string{"web", "4711"}, "sub": "u", "jti": "j",
				"client_id": "web", "nbf": now, "urn:zitadel:iam:org:project:roles": claims{"user": claims{"1": "shop"},
					"admin": claims{"1": "shop"}}},
			[]string{"admin", "user"}, nil, "web",
		},
		"Kubernetes": {
			issuers.Kubernetes("https://kubernetes.default.svc.cluster.local", "orders"),
			rsaKey(t, "k8s", jwt.SigningMethodRS256, map[string]any{"alg": "RS256", "use": "sig"}), nil,
			claims{"iss": "https://kubernetes.default.svc.cluster.local", "aud": []string{"orders"},
				"sub": "system:serviceaccount:shop:payments", "nbf": now, "jti": "j", "kubernetes.io": claims{"namespace": "shop",
					"warnafter": now}},
			nil, nil, "",
		},
		"any issuer, keys without alg and kid": {
			issuers.IdentityServer("https://id.shop", "orders"), rsaKey(t, "", jwt.SigningMethodRS256, nil),
			claims{"typ": "at+jwt"},
			claims{"iss": "https://id.shop", "aud": "orders", "sub": "1"}, nil, nil, "",
		},
		"any issuer, EdDSA": {
			issuers.IdentityServer("https://id.shop", "orders"), edKey(t, "ed"), claims{"typ": "at+jwt"},
			claims{"iss": "https://id.shop", "aud": "orders", "sub": "1", "role": "admin"}, []string{"admin"}, nil, "",
		},
		"any issuer, RS512": {
			issuers.IdentityServer("https://id.shop", "orders"), rsaKey(t, "r", jwt.SigningMethodRS512,
				map[string]any{"alg": "RS512"}), claims{"typ": "at+jwt"},
			claims{"iss": "https://id.shop", "aud": "orders", "sub": "1"}, nil, nil, "",
		},
		"any issuer, PS512": {
			issuers.IdentityServer("https://id.shop", "orders"), rsaKey(t, "p", jwt.SigningMethodPS512,
				map[string]any{"alg": "PS512"}), claims{"typ": "at+jwt"},
			claims{"iss": "https://id.shop", "aud": "orders", "sub": "1"}, nil, nil, "",
		},
	} {
		table.add(name, c.cfg, c.key, c.header, c.claims)
		t.Run(name, func(t *testing.T) {
			keys := slices.Clone(unusable)
			for i := range 200 { // as a set that was never cleaned
				keys = append(keys, map[string]any{"kty": "RSA", "kid": fmt.Sprint("old", i), "n": "AQAB", "e": "AQAB"})
			}
			set := openSet(t, append(keys, c.key.jwk, edKey(t, "another").jwk), "")
			c.cfg.Logger = quiet
			v := authn.Must(authn.NewVerifier(set, c.cfg))
			good := with(c.claims, claims{"iat": now, "exp": now + 600})
			u, err := v.Verify(t.Context(), c.key.sign(t, c.header, good))
			if err != nil {
				t.Fatal(err)
			}
			if u.ID != c.claims["sub"] || !slices.Equal(u.Roles, c.roles) || !slices.Equal(u.Scopes, c.scopes) ||
				u.ClientID != c.client {
				t.Errorf("got %q, roles %q, scopes %q, client %q", u.ID, u.Roles, u.Scopes, u.ClientID)
			}
			audience := "aud"
			if c.cfg.AudienceClaim != "" {
				audience = c.cfg.AudienceClaim
			}
			for attack, change := range map[string]claims{
				"another audience":        {audience: "another"},
				"no audience":             {audience: nil},
				"an empty audience":       {audience: []string{}},
				"another issuer":          {"iss": "https://evil.test/"},
				"another tenant":          {"iss": strings.Replace(fmt.Sprint(c.claims["iss"]), "://", "://evil.", 1)},
				"no issuer":               {"iss": nil},
				"no expiry":               {"exp": nil},
				"expired":                 {"exp": now - 3600},
				"bound to a key":          {"cnf": claims{"x5t#S256": "x"}},
				"Keycloak's refresh":      {"typ": "Refresh"},
				"client as audience":      {audience: nil, "azp": fmt.Sprint(c.cfg.Audience[0])},
				"no subject":              {"sub": nil},
				"a logout token":          {"events": claims{"http://schemas.openid.net/event/backchannel-logout": claims{}}},
				"an ID token by its hash": {"at_hash": "h"},
				"an ID token by its use":  {"token_use": "id"},
			} {
				if c.cfg.IDTokens && strings.HasPrefix(attack, "an ID token") {
					continue
				}
				_, err := v.Verify(t.Context(), c.key.sign(t, c.header, with(good, change)))
				if refused, ok := errors.AsType[*authn.TokenError](err); !ok {
					t.Errorf("%s: got %v, want a refusal", attack, err)
				} else if attack != "expired" && refused.Claim == "" {
					t.Errorf("%s: the reason %q names no claim", attack, refused.Reason)
				}
			}
			forged := rsaKey(t, fmt.Sprint(c.key.jwk["kid"]), jwt.SigningMethodRS256, nil)
			if _, err := v.Verify(t.Context(), forged.sign(t, c.header, good)); !errors.Is(err, authn.ErrToken) {
				t.Errorf("signed by another key: %v", err)
			}
			none := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims(good))
			if s, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType); err != nil {
				t.Fatal(err)
			} else if _, err := v.Verify(t.Context(), s); !errors.Is(err, authn.ErrToken) {
				t.Errorf("without a signature: %v", err)
			}
		})
	}
	table.check(t, "../../docs/issuers.md")
}

func withRoles(cfg authn.VerifierConfig, claim string) authn.VerifierConfig {
	cfg.RolesClaim = claim
	return cfg
}

// openSet serves a key set and reads it.
func openSet(t *testing.T, keys []any, rsa authn.Algorithm) *jwks.Set {
	t.Helper()
	doc, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(doc) }))
	t.Cleanup(srv.Close)
	set := jwks.Must(jwks.New(srv.URL, jwks.Config{RSA: rsa, Logger: quiet}))
	t.Cleanup(func() { _ = set.Close() })
	return set
}

// An RSA key that names no algorithm verifies the one of the configuration, and only that one.
func TestAlgorithmOfRSAKeysByOption(t *testing.T) {
	for _, m := range []jwt.SigningMethod{jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512,
		jwt.SigningMethodRS384, jwt.SigningMethodRS512} {
		k := rsaKey(t, "k", m, nil)
		token := k.sign(t, nil, claims{"iss": "x", "aud": "y", "sub": "z", "exp": time.Now().Unix() + 60})
		for option, want := range map[authn.Algorithm]bool{authn.Algorithm(m.Alg()): true, "": false} {
			v := authn.Must(authn.NewVerifier(openSet(t, []any{k.jwk}, option), authn.VerifierConfig{Issuer: "x",
				Audience: []string{"y"}, Logger: quiet}))
			if _, err := v.Verify(t.Context(), token); (err == nil) != want {
				t.Errorf("%s with the option %q: got %v, want accepted: %v", m.Alg(), option, err, want)
			}
		}
	}
}

// Tokens of two issuers pass one Verifier, which counts and logs one refusal each.
func TestJoinChoosesByIssuer(t *testing.T) {
	one, two := edKey(t, "one"), edKey(t, "two")
	verifier := func(k key, issuer string) *authn.Verifier {
		return authn.Must(authn.NewVerifier(openSet(t, []any{k.jwk}, ""), authn.VerifierConfig{Issuer: issuer,
			Audience: []string{"y"}, Logger: quiet}))
	}
	v := authn.Must(authn.Join(verifier(one, "https://one"), verifier(two, "https://two")))
	token := func(k key, issuer string) string {
		return k.sign(t, nil, claims{"iss": issuer, "aud": "y", "sub": "z", "exp": time.Now().Unix() + 60})
	}
	for range 2 { // the second time from the cache
		for _, good := range []string{token(one, "https://one"), token(two, "https://two")} {
			if _, err := v.Verify(t.Context(), good); err != nil {
				t.Error(err)
			}
		}
	}
	for name, bad := range map[string]string{"the key of the other": token(one, "https://two"),
		"unknown": token(one, "https://three")} {
		if _, err := v.Verify(t.Context(), bad); !errors.Is(err, authn.ErrToken) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	if _, err := authn.Join(verifier(one, "https://one"), verifier(two, "https://one")); err == nil {
		t.Error("two Verifiers of one issuer were joined")
	}
}

func TestCognitoNeedsClients(t *testing.T) {
	if _, err := authn.NewVerifier(openSet(t, []any{edKey(t, "k").jwk}, ""),
		issuers.Cognito("eu-west-1", "pool")); err == nil {
		t.Error("tokens of every client would be accepted")
	}
}
