package authn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/authn"
)

func TestIssueVerifyRequire(t *testing.T) {
	for _, alg := range []authn.Algorithm{authn.EdDSA, authn.HS256, authn.RS256, authn.ES256} {
		w := newWorld(t, authn.KeyConfig{Algorithm: alg}, authn.IssuerConfig{})
		pair, err := w.issuer.Issue(t.Context(), authn.Subject{ID: "u1", Roles: []string{"admin"},
			Claims: map[string]any{"tenant": "acme"}})
		must(t, err)
		for range 2 { // the second time from the cache
			u, err := w.v.Verify(t.Context(), pair.AccessToken)
			if err != nil || u.ID != "u1" || !u.HasAnyRole("x", "admin") || u.HasAllRoles("x", "admin") ||
				u.Claims["tenant"] != "acme" {
				t.Fatalf("%s: %+v, %v", alg, u, err)
			}
			u.Roles[0], u.Claims["tenant"] = "changed", "changed" // must not reach the cache
		}
		if s := fmt.Sprintf("%v %+v %#v", pair, pair, pair); strings.Contains(s, pair.AccessToken) ||
			strings.Contains(s, pair.RefreshToken) {
			t.Errorf("%s: the pair prints its tokens: %s", alg, s)
		}
	}
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	for _, name := range []string{"sub", "exp", "SUB", "iss", "roles", "Aud"} {
		if _, err := w.issuer.Issue(t.Context(), authn.Subject{ID: "u1", Claims: map[string]any{name: "x"}}); err == nil {
			t.Errorf("a subject sets the claim %s", name)
		}
	}
}

func TestRequirePassesTheIdentityAndRemovesForgedHeaders(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	user, admin := w.issue(t, "user").AccessToken, w.issue(t, "user", "admin").AccessToken
	var seen *authn.User
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen, _ = authn.FromContext(r.Context())
		if r.Header.Get("X-User-ID") != "" {
			t.Error("an identity header from outside arrived")
		}
	})
	for _, c := range []struct {
		name      string
		opts      []authn.Requirement
		auth      []string
		code      int
		challenge string
	}{
		{"none", nil, nil, 401, "Bearer"},
		{"basic", nil, []string{"Basic dTpw"}, 401, "Bearer"},
		{"empty", nil, []string{"Bearer "}, 401, "Bearer"},
		{"bad", nil, []string{"Bearer x.y.z"}, 401, `Bearer error="invalid_token"`},
		{"two headers", nil, []string{"Bearer " + user, "Bearer " + admin}, 401, `Bearer error="invalid_token"`},
		{"two tokens", nil, []string{"Bearer " + user + "," + admin}, 401, `Bearer error="invalid_token"`},
		{"good", nil, []string{"Bearer " + user}, 200, ""},
		{"case of the scheme", nil, []string{"bEARER " + user}, 200, ""},
		{"any role", []authn.Requirement{authn.AnyRole("root", "admin")}, []string{"Bearer " + admin}, 200, ""},
		{"no role", []authn.Requirement{authn.AnyRole("root", "admin")}, []string{"Bearer " + user}, 403,
			`Bearer error="insufficient_scope"`},
		{"all roles", []authn.Requirement{authn.AllRoles("user", "admin")}, []string{"Bearer " + admin}, 200, ""},
		{"not all roles", []authn.Requirement{authn.AllRoles("user", "admin")}, []string{"Bearer " + user}, 403,
			`Bearer error="insufficient_scope"`},
		{"all of no roles", []authn.Requirement{authn.AllRoles()}, []string{"Bearer " + admin}, 403,
			`Bearer error="insufficient_scope"`},
		{"all of no scopes", []authn.Requirement{authn.AllScopes()}, []string{"Bearer " + admin}, 403,
			`Bearer error="insufficient_scope"`},
		{"no roles named", []authn.Requirement{authn.AnyRole()}, []string{"Bearer " + admin}, 403,
			`Bearer error="insufficient_scope"`},
	} {
		seen = nil
		r := httptest.NewRequest("GET", "/?access_token="+user, nil)
		r.Header["Authorization"] = c.auth
		r.Header.Set("X-User-ID", "root")
		rec := httptest.NewRecorder()
		authn.Require(w.v, c.opts...)(next).ServeHTTP(rec, r)
		if rec.Code != c.code || rec.Header().Get("WWW-Authenticate") != c.challenge {
			t.Errorf("%s: %d %q", c.name, rec.Code, rec.Header().Get("WWW-Authenticate"))
		}
		if c.code != 200 && (seen != nil || rec.Header().Get("Content-Type") != "application/problem+json") {
			t.Errorf("%s: %v %s", c.name, seen, rec.Body)
		}
		if c.code == 200 && c.auth != nil && (seen == nil || seen.ID != "u1") {
			t.Errorf("%s: user %v", c.name, seen)
		}
	}
}

func TestOptionalAdmitsCallersWithoutToken(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	for _, c := range []struct {
		name string
		auth []string
		code int
		user bool
	}{
		{"no token", nil, 200, false},
		{"a good token", []string{"Bearer " + w.issue(t).AccessToken}, 200, true},
		{"a bad token", []string{"Bearer x.y.z"}, 401, false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r = r.WithContext(authn.WithUser(r.Context(), &authn.User{ID: "of outer middleware"}))
		r.Header["Authorization"] = c.auth
		rec := httptest.NewRecorder()
		authn.Optional(w.v)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if u, ok := authn.FromContext(r.Context()); ok != c.user || ok && u.ID != "u1" {
				t.Errorf("%s: user %v, %v", c.name, u, ok)
			}
		})).ServeHTTP(rec, r)
		if rec.Code != c.code {
			t.Errorf("%s: got %d, want %d", c.name, rec.Code, c.code)
		}
	}
}

// TestRotationRefusesNothing runs two replicas and a verifier that caches the key set for a few minutes through three
// rotations, issuing all the time: no token that lives may be refused.
func TestRotationRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := authn.NewMemoryKeys()
		cfg := authn.KeyConfig{RotateEvery: 24 * time.Hour, PublishAhead: time.Hour, VerifyFor: 2 * time.Hour, Logger: quiet}
		replicas := []*authn.KeySet{authn.Must(authn.NewKeySet(store, cfg)), authn.Must(authn.NewKeySet(store, cfg))}
		var issuers []*authn.Issuer
		for _, k := range replicas {
			issuers = append(issuers, authn.Must(authn.NewIssuer(k, authn.NewMemoryTokens(),
				authn.IssuerConfig{Issuer: issuerName, TTL: 30 * time.Minute, Logger: quiet})))
		}
		remote := &staticSet{}
		v := authn.Must(authn.NewVerifier(remote, authn.VerifierConfig{Issuer: issuerName, CacheSize: -1, Logger: quiet}))
		kids := map[string]bool{}
		var live []string
		for step := range 3*24*12 + 12 { // every 5 minutes
			if step%3 == 0 { // the remote reads the set every 15 minutes
				keys, err := authn.ParseJWKS(replicas[step%2].JWKS(), "")
				must(t, err)
				remote.keys = keys
			}
			p, err := issuers[step%2].Issue(t.Context(), authn.Subject{ID: "u1"})
			must(t, err)
			live = append(live, p.AccessToken)
			if len(live) > 6 {
				live = live[1:]
			}
			for _, token := range live {
				if _, err := v.Verify(t.Context(), token); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				kids[strings.SplitN(token, ".", 2)[0]] = true
			}
			time.Sleep(5 * time.Minute)
		}
		if len(kids) < 4 {
			t.Errorf("only %d keys have signed in three days", len(kids))
		}
		keys, _, _ := store.Load(t.Context())
		if len(keys) > 3 {
			t.Errorf("%d keys are kept", len(keys))
		}
	})
}

type staticSet struct{ keys []authn.VerifyKey }

func (s *staticSet) Keys(_ context.Context, id string, alg authn.Algorithm) ([]authn.VerifyKey, error) {
	if found := authn.FindKeys(s.keys, id, alg); len(found) > 0 {
		return found, nil
	}
	return nil, authn.ErrUnknownKey
}

// flaky is a KeyStore that can be down.
type flaky struct {
	authn.KeyStore
	mu   sync.Mutex
	down bool
}

func (f *flaky) Load(ctx context.Context) ([]authn.Key, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, 0, errors.New("down")
	}
	return f.KeyStore.Load(ctx)
}

func TestKeysSurviveADeadStoreAndRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{KeyStore: authn.NewMemoryKeys()}
		k := authn.Must(authn.NewKeySet(store, authn.KeyConfig{Logger: quiet}))
		other := authn.Must(authn.NewKeySet(store, authn.KeyConfig{Logger: quiet}))
		i := authn.Must(authn.NewIssuer(k, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: issuerName, Logger: quiet}))
		v := authn.Must(authn.NewVerifier(other, authn.VerifierConfig{Issuer: issuerName, Logger: quiet}))
		store.down = true
		time.Sleep(time.Hour)
		p, err := i.Issue(t.Context(), authn.Subject{ID: "u1"})
		must(t, err)
		if _, err := v.Verify(t.Context(), p.AccessToken); err != nil {
			t.Fatal(err)
		}
		store.down = false
		keys, _, _ := store.Load(t.Context())
		must(t, k.Remove(t.Context(), keys[0].ID))
		if err := k.Remove(t.Context(), "none"); !errors.Is(err, authn.ErrUnknownKey) {
			t.Errorf("remove nothing: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := v.Verify(t.Context(), p.AccessToken); !errors.Is(err, authn.ErrUnknownKey) {
			t.Errorf("a removed key's token, in the cache: %v", err)
		}
		p, err = i.Issue(t.Context(), authn.Subject{ID: "u1"})
		must(t, err)
		if _, err := v.Verify(t.Context(), p.AccessToken); err != nil {
			t.Errorf("the key after it: %v", err)
		}
	})
}

func TestJWKSHandler(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{Algorithm: authn.ES256}, authn.IssuerConfig{})
	rec := httptest.NewRecorder()
	w.keys.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	var doc struct{ Keys []map[string]any }
	must(t, json.Unmarshal(rec.Body.Bytes(), &doc))
	if len(doc.Keys) != 1 || doc.Keys[0]["kty"] != "EC" || doc.Keys[0]["d"] != nil || doc.Keys[0]["use"] != "sig" {
		t.Errorf("%s", rec.Body)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("If-None-Match", rec.Header().Get("ETag"))
	rec = httptest.NewRecorder()
	w.keys.Handler().ServeHTTP(rec, r)
	if rec.Code != 304 {
		t.Errorf("conditional: %d", rec.Code)
	}
	s, err := authn.NewSecretKeySet([]byte(strings.Repeat("s", 32)))
	must(t, err)
	if got := string(s.JWKS()); got != `{"keys":[]}` {
		t.Errorf("a secret is published: %s", got)
	}
}

// TestSharedSecret reads a token as PyJWT makes it, and writes one that it reads.
func TestSharedSecret(t *testing.T) {
	secret := []byte(strings.Repeat("k", 40))
	keys, err := authn.NewSecretKeySet(secret)
	must(t, err)
	v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Unbound: true, Logger: quiet}))
	token := hmacToken(secret, `{"alg":"HS256","typ":"JWT"}`, fmt.Sprintf(`{"sub":"u1","roles":["user"],"exp":%d}`,
		time.Now().Unix()+60))
	if u, err := v.Verify(t.Context(), token); err != nil || u.ID != "u1" {
		t.Errorf("%+v, %v", u, err)
	}
	i := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x"}))
	p, err := i.Issue(t.Context(), authn.Subject{ID: "u1"})
	must(t, err)
	head, _, err := authn.VerifyJWS(p.AccessToken, authn.VerifyKey{Algorithm: authn.HS256, Public: secret})
	if err != nil || head["kid"] != nil || head["typ"] != "JWT" {
		t.Errorf("%v, %v", head, err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	authn.Must(authn.NewKeySet(authn.NewFileKeys(path), authn.KeyConfig{Logger: quiet}))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, os.Chmod(path, 0o644))
	if _, err := authn.NewKeySet(authn.NewFileKeys(path), authn.KeyConfig{Logger: quiet}); err == nil {
		t.Error("a file that everybody reads was accepted")
	}
	must(t, os.WriteFile(path, []byte("{"), 0o600))
	if _, err := authn.NewKeySet(authn.NewFileKeys(path), authn.KeyConfig{Logger: quiet}); err == nil {
		t.Error("a damaged file was accepted")
	}
	k, err := authn.GenerateKey(authn.HS256, time.Now())
	must(t, err)
	data, err := json.Marshal(k)
	must(t, err)
	if strings.Contains(string(data), string(k.Private.Reveal())) || !strings.Contains(string(data), "REDACTED") {
		t.Errorf("a key marshals as %s", data)
	}
}

func TestTTLMustFitTheKeys(t *testing.T) {
	k := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{VerifyFor: time.Hour, Logger: quiet}))
	if _, err := authn.NewIssuer(k, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x", TTL: time.Hour}); err == nil {
		t.Error("tokens may outlive their keys")
	}
}
