package authn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/authn"
)

func apiKeys(t *testing.T, cfg authn.APIKeyConfig) (*authn.APIKeys, *authn.MemoryAPIKeys) {
	t.Helper()
	store := authn.NewMemoryAPIKeys()
	k, err := authn.NewAPIKeys(store, cfg)
	must(t, err)
	return k, store
}

func issueKey(t *testing.T, k *authn.APIKeys, s authn.Subject, opt authn.APIKeyOptions) (string, authn.APIKey) {
	t.Helper()
	secret, key, err := k.Issue(t.Context(), s, opt)
	must(t, err)
	return secret, key
}

var robot = authn.Subject{
	ID: "robot", ClientID: "ci", Roles: []string{"user"}, Scopes: []string{"orders:read", "orders:write"},
	Claims: map[string]any{"tenant": "acme", "account": int64(9007199254740993)},
}

// The user of a key is what the user of a token of the same subject is.
func TestAPIKeyStandsForItsSubject(t *testing.T) {
	k, store := apiKeys(t, authn.APIKeyConfig{Prefix: "shop_live"})
	secret, key := issueKey(t, k, robot, authn.APIKeyOptions{Name: "CI of the web team"})
	if !strings.HasPrefix(secret, "shop_live_"+key.ID+"_") {
		t.Errorf("got the key %.20s..., want it to begin with the prefix and the id %s", secret, key.ID)
	}
	u, err := k.Verify(t.Context(), secret)
	must(t, err)
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	pair, err := w.issuer.Issue(t.Context(), robot)
	must(t, err)
	want, err := w.v.Verify(t.Context(), pair.AccessToken)
	must(t, err)
	for _, name := range []string{"iss", "aud", "jti", "iat", "exp"} { // a key has none of them
		delete(want.Claims, name)
	}
	if u.ID != want.ID || u.ClientID != want.ClientID || !reflect.DeepEqual(u.Roles, want.Roles) ||
		!reflect.DeepEqual(u.Scopes, want.Scopes) || !reflect.DeepEqual(u.Claims, want.Claims) {
		t.Errorf("got %+v\nwant %+v", u, want)
	}
	if u.TokenID != key.ID || !u.ExpiresAt.Equal(key.ExpiresAt) {
		t.Errorf("got the id %s until %s, want %s until %s", u.TokenID, u.ExpiresAt, key.ID, key.ExpiresAt)
	}
	type account struct{ Account int64 }
	if c, err := authn.ClaimsOf[account](u); err != nil || c.Account != 9007199254740993 {
		t.Errorf("got %v, %v, want the number as it was given", c, err)
	}
	stored, err := store.Lookup(t.Context(), key.ID)
	must(t, err)
	if random := secret[len("shop_live_")+len(key.ID)+1:]; strings.Contains(fmt.Sprintf("%+v", stored), random) {
		t.Error("the store holds the secret")
	}
	data, err := json.Marshal(stored)
	must(t, err)
	if strings.Contains(string(data), stored.Hash) || !strings.Contains(string(data), "CI of the web team") {
		t.Errorf("got the JSON %s, want the name and no hash", data)
	}
}

// All refusals look the same from outside, and no malformed key reaches the store.
func TestAPIKeyRefusals(t *testing.T) {
	k, store := apiKeys(t, authn.APIKeyConfig{})
	secret, key := issueKey(t, k, robot, authn.APIKeyOptions{})
	other, _ := issueKey(t, k, robot, authn.APIKeyOptions{})
	lookups := &countsLookups{MemoryAPIKeys: store}
	k = authn.Must(authn.NewAPIKeys(lookups, authn.APIKeyConfig{}))
	v := authn.Must(authn.NewVerifier(nil, authn.VerifierConfig{APIKeys: k, Logger: quiet}))
	foreign, _ := apiKeys(t, authn.APIKeyConfig{})
	unknown, _ := issueKey(t, foreign, robot, authn.APIKeyOptions{})
	random := secret[strings.LastIndex(secret, "_"):]
	for name, c := range map[string]struct {
		key     string
		lookups int
	}{
		"unknown id":              {unknown, 1},
		"the secret of another":   {secret[:len(secret)-len(random)] + other[len(other)-len(random):], 1},
		"hash in place of secret": {"key_" + key.ID + "_" + key.Hash[:len(random)-1], 0},
		"upper case":              {"key_" + strings.ToUpper(secret[4:]), 0},
		"cut":                     {secret[:len(secret)-1], 0},
		"longer":                  {secret + "a", 0},
		"no secret":               {"key_" + key.ID, 0},
		"prefix only":             {"key_", 0},
		"another prefix":          {"kex_" + secret[4:], 0},
		"no prefix":               {secret[4:], 0},
		"SQL in the id":           {"key_' OR 1=1 --xxxx" + random, 0},
		"white space":             {" " + secret, 0},
		"very long":               {"key_" + strings.Repeat("a", 1<<20), 0},
		"a character that folds":  {strings.Replace(secret, "key_", "\u212Aey_", 1), 0},
	} {
		lookups.n = 0
		if _, err := v.Verify(t.Context(), c.key); !errors.Is(err, authn.ErrToken) {
			t.Errorf("%s: got %v, want ErrToken", name, err)
		}
		if lookups.n != c.lookups {
			t.Errorf("%s: the store was asked %d times, want %d", name, lookups.n, c.lookups)
		}
		if name == "white space" { // the header's form allows it
			continue
		}
		if overHTTP, overGRPC, err := verifyEverywhere(v, c.key); overHTTP != "" || overGRPC != "" || err != nil {
			t.Errorf("%s: got %q and %q, %v, want 401 and Unauthenticated", name, overHTTP, overGRPC, err)
		}
	}
	if overHTTP, overGRPC, err := verifyEverywhere(v, secret); overHTTP != "robot" || overGRPC != "robot" || err != nil {
		t.Errorf("a good key: got %q and %q, %v", overHTTP, overGRPC, err)
	}
	lookups.fail = errors.New("hush")
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	authn.Require(v)(http.NotFoundHandler()).ServeHTTP(rec, r)
	if rec.Code != http.StatusServiceUnavailable || strings.Contains(rec.Body.String(), "hush") {
		t.Errorf("an outage: got %d %s, want 503", rec.Code, rec.Body)
	}
}

// An id that a client has sent may be any text. One that no key has is not asked for: databases would fail.
func TestAPIKeysRefuseMalformedIDs(t *testing.T) {
	store := &countsLookups{MemoryAPIKeys: authn.NewMemoryAPIKeys(), fail: errors.New("invalid byte sequence")}
	k := authn.Must(authn.NewAPIKeys(store, authn.APIKeyConfig{}))
	for _, id := range []string{"", "none", "aaaaaaa\x00aaaaaaaa", "aaaaaaaaaaaaaaa\xff", "AAAAAAAAAAAAAAAA",
		strings.Repeat("a", 17)} {
		_, err := k.Rotate(t.Context(), id)
		if !errors.Is(err, authn.ErrAPIKey) {
			t.Errorf("rotate %q: got %v, want ErrAPIKey", id, err)
		}
		if err := k.Revoke(t.Context(), "u", id); !errors.Is(err, authn.ErrAPIKey) {
			t.Errorf("revoke %q: got %v, want ErrAPIKey", id, err)
		}
	}
	if store.n != 0 {
		t.Errorf("the store was asked %d times, want never", store.n)
	}
}

// OnVerify changes what a key may do without a new key.
func TestAPIKeyOnVerify(t *testing.T) {
	var result error
	other := ""
	k, _ := apiKeys(t, authn.APIKeyConfig{OnVerify: func(_ context.Context, k authn.APIKey) (authn.Subject, error) {
		k.Subject.ID += other
		k.Subject.Roles = []string{"demoted"}
		return k.Subject, result
	}})
	secret, _ := issueKey(t, k, robot, authn.APIKeyOptions{})
	u, err := k.Verify(t.Context(), secret)
	if err != nil || !reflect.DeepEqual(u.Roles, []string{"demoted"}) {
		t.Errorf("got %v, %v, want the roles of today", u, err)
	}
	result = fmt.Errorf("locked: %w", authn.ErrAPIKey)
	if _, err := k.Verify(t.Context(), secret); !errors.Is(err, authn.ErrToken) {
		t.Errorf("a locked user: got %v, want ErrToken", err)
	}
	result = errors.New("hush")
	if _, err := k.Verify(t.Context(), secret); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("an outage: got %v, want ErrUnavailable", err)
	}
	result, other = nil, "-other"
	if u, err := k.Verify(t.Context(), secret); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("another subject: got %v, %v, want ErrUnavailable", u, err)
	}
}

// One Verifier accepts tokens of several issuers and API keys.
func TestAPIKeysBesideTokens(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	k, _ := apiKeys(t, authn.APIKeyConfig{})
	secret, _ := issueKey(t, k, robot, authn.APIKeyOptions{})
	token := w.issue(t).AccessToken
	both := authn.Must(authn.NewVerifier(w.keys, authn.VerifierConfig{
		Issuer: issuerName, Audience: []string{"shop"}, Revocations: w.store, APIKeys: k, Logger: quiet,
	}))
	joined := authn.Must(authn.Join(authn.Must(authn.NewVerifier(w.keys, authn.VerifierConfig{Issuer: "https://other",
		Logger: quiet})), both))
	for name, v := range map[string]*authn.Verifier{"one issuer": both, "joined": joined} {
		for credential, want := range map[string]string{token: "u1", secret: "robot"} {
			if overHTTP, overGRPC, err := verifyEverywhere(v, credential); overHTTP != want || overGRPC != want || err != nil {
				t.Errorf("%s: got %q and %q, %v, want %s", name, overHTTP, overGRPC, err, want)
			}
			if subject, _, _, err := v.Authenticate(t.Context(), credential); subject != want || err != nil {
				t.Errorf("%s: Authenticate: got %q, %v, want %s", name, subject, err, want)
			}
		}
	}
	only := authn.Must(authn.NewVerifier(nil, authn.VerifierConfig{APIKeys: k, Logger: quiet}))
	for _, c := range []struct {
		v          *authn.Verifier
		credential string
	}{{only, token}, {w.v, secret}} {
		if overHTTP, overGRPC, err := verifyEverywhere(c.v, c.credential); overHTTP != "" || overGRPC != "" || err != nil {
			t.Errorf("a credential of the other kind: got %q and %q, %v, want 401", overHTTP, overGRPC, err)
		}
	}
}

func TestAPIKeyHeader(t *testing.T) {
	k, _ := apiKeys(t, authn.APIKeyConfig{})
	secret, _ := issueKey(t, k, robot, authn.APIKeyOptions{})
	v := authn.Must(authn.NewVerifier(nil, authn.VerifierConfig{APIKeys: k, Logger: quiet}))
	h := authn.APIKeyHeader("x-api-key")(authn.Require(v)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != "" {
			t.Error("the handler sees the header")
		}
	})))
	for name, c := range map[string]struct {
		header http.Header
		want   int
	}{
		"its header":   {http.Header{"X-Api-Key": {secret}}, 200},
		"bearer":       {http.Header{"Authorization": {"Bearer " + secret}}, 200},
		"both":         {http.Header{"X-Api-Key": {secret}, "Authorization": {"Bearer " + secret}}, 401},
		"twice":        {http.Header{"X-Api-Key": {secret, secret}}, 401},
		"wrong":        {http.Header{"X-Api-Key": {secret + "x"}}, 401},
		"empty":        {http.Header{"X-Api-Key": {""}}, 401},
		"none":         {http.Header{}, 401},
		"other scheme": {http.Header{"X-Api-Key": {secret}, "Authorization": {"Basic YTpi"}}, 401},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = c.header
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != c.want {
			t.Errorf("%s: got %d, want %d", name, rec.Code, c.want)
		}
		if len(c.header["X-Api-Key"]) > 0 && len(r.Header["X-Api-Key"]) == 0 {
			t.Errorf("%s: the header of the original request has changed", name)
		}
	}
}

func TestAPIKeysRefuseUnfitSettingsAndSubjects(t *testing.T) {
	for _, prefix := range []string{"_x", "x_", "a b", "a-b", "ä", "a.b", strings.Repeat("x", 33)} {
		if _, err := authn.NewAPIKeys(authn.NewMemoryAPIKeys(), authn.APIKeyConfig{Prefix: prefix}); err == nil {
			t.Errorf("the prefix %q is accepted", prefix)
		}
	}
	k, _ := apiKeys(t, authn.APIKeyConfig{})
	for name, s := range map[string]authn.Subject{
		"no id": {}, "a scope with a space": {ID: "u", Scopes: []string{"a b"}},
		"a claim of ours": {ID: "u", Claims: map[string]any{"Roles": "admin"}},
		"invalid UTF-8":   {ID: "u", Claims: map[string]any{"x": "\xff"}},
	} {
		if _, _, err := k.Issue(t.Context(), s, authn.APIKeyOptions{}); err == nil {
			t.Errorf("%s: a key was issued", name)
		}
	}
}
