package authn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sillar-go/sillar/authn"
)

// checkClient admits the clients web and orders with their secrets.
func checkClient(_ context.Context, id, secret string) error {
	if id != "web" && id != "orders" || secret != id+"-secret" {
		return authn.ErrClient
	}
	return nil
}

func post(t *testing.T, h http.Handler, client string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("POST", "/", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client != "" {
		r.SetBasicAuth(client, client+"-secret")
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// RFC 6749, section 6: a refresh token works for the client that it was issued to.
func TestRefreshTokenIsBoundToItsClient(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	h := endpoint(w, authn.TokenEndpointConfig{Client: checkClient})
	rec := post(t, h, "web", url.Values{"grant_type": {"password"}, "username": {"ana"}, "password": {"secret"}})
	var pair authn.TokenPair
	must(t, json.Unmarshal(rec.Body.Bytes(), &pair))
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {pair.RefreshToken}}
	if rec := post(t, h, "orders", refresh); rec.Code != 400 || !strings.Contains(rec.Body.String(), "invalid_grant") {
		t.Errorf("another client: got %d %s, want 400 invalid_grant", rec.Code, rec.Body)
	}
	rec = post(t, h, "web", refresh)
	if rec.Code != 200 {
		t.Fatalf("its own client, after the try of another: got %d %s", rec.Code, rec.Body)
	}
	must(t, json.Unmarshal(rec.Body.Bytes(), &pair))
	u, err := w.v.Verify(t.Context(), pair.AccessToken)
	if err != nil || u.ClientID != "web" {
		t.Errorf("after the refresh: client %q, %v", u.ClientID, err)
	}
}

// A service gets tokens for itself with the client that Go programs have.
func TestClientCredentials(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	srv := httptest.NewServer(endpoint(w, authn.TokenEndpointConfig{
		Client: checkClient,
		ClientCredentials: func(_ context.Context, clientID string, scopes []string) (authn.Subject, error) {
			if slices.Contains(scopes, "admin") {
				return authn.Subject{}, authn.ErrScope
			}
			return authn.Subject{ID: "service:" + clientID, Scopes: scopes}, nil
		},
	}))
	defer srv.Close()
	conf := clientcredentials.Config{ClientID: "orders", ClientSecret: "orders-secret", TokenURL: srv.URL,
		Scopes: []string{"stock:read", "stock:write"}}
	token, err := conf.Token(t.Context())
	must(t, err)
	u, err := w.v.Verify(t.Context(), token.AccessToken)
	must(t, err)
	if u.ID != "service:orders" || u.ClientID != "orders" || !u.HasAllScopes("stock:read", "stock:write") ||
		u.HasAnyScope("admin") || token.RefreshToken != "" {
		t.Errorf("got %+v with the refresh token %q", u, token.RefreshToken)
	}
	for _, c := range []struct {
		secret, scope, want string
	}{{"wrong", "stock:read", "invalid_client"}, {"orders-secret", "admin", "invalid_scope"}} {
		conf.ClientSecret, conf.Scopes = c.secret, []string{c.scope}
		_, err := conf.Token(t.Context())
		if re, ok := errors.AsType[*oauth2.RetrieveError](err); !ok || re.ErrorCode != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestRevocationEndpoint(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	h := authn.RevocationEndpoint(w.issuer, authn.RevocationEndpointConfig{Client: checkClient, Logger: quiet})
	issue := func() authn.TokenPair {
		p, err := w.issuer.Issue(t.Context(), authn.Subject{ID: "u1", ClientID: "web"})
		must(t, err)
		return p
	}
	p := issue()
	for _, c := range []struct {
		name, client, token string
		code                int
	}{
		{"another client, refresh token", "orders", p.RefreshToken, 400},
		{"another client, access token", "orders", p.AccessToken, 400},
		{"no client", "", p.RefreshToken, 401},
		{"no token", "web", "", 400},
	} {
		if rec := post(t, h, c.client, url.Values{"token": {c.token}}); rec.Code != c.code {
			t.Errorf("%s: got %d %s, want %d", c.name, rec.Code, rec.Body, c.code)
		}
	}
	if _, err := w.v.Verify(t.Context(), p.AccessToken); err != nil {
		t.Fatalf("a refused revocation has revoked: %v", err)
	}
	for _, token := range []string{p.AccessToken, p.RefreshToken, p.RefreshToken, "unknown", "x.y.z"} {
		if rec := post(t, h, "web", url.Values{"token": {token}}); rec.Code != 200 {
			t.Errorf("%.10s: got %d %s, want 200", token, rec.Code, rec.Body)
		}
	}
	if _, err := w.v.Verify(t.Context(), p.AccessToken); !errors.Is(err, authn.ErrRevoked) {
		t.Errorf("the access token: got %v, want ErrRevoked", err)
	}
	if _, err := w.issuer.Refresh(t.Context(), p.RefreshToken, "web"); !errors.Is(err, authn.ErrRefresh) {
		t.Errorf("the refresh token: got %v, want ErrRefresh", err)
	}
}

// What Issue returns, Verify accepts, with the same claims; what Verify would refuse, Issue refuses.
func TestIssueReturnsWhatVerifyAccepts(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	deep := any("x")
	for range 20 {
		deep = []any{deep}
	}
	type marked struct {
		Note string `json:"note"`
	}
	for name, c := range map[string]struct {
		s    authn.Subject
		good bool
	}{
		"a replacement character beside an escape": {authn.Subject{ID: "u",
			Claims: map[string]any{"note": "\ufffd<&>\n\u2028"}}, true},
		"emoji": {authn.Subject{ID: "u", Claims: map[string]any{"note": "\U0001F600\\ud83d\""}}, true},
		"large numbers": {authn.Subject{ID: "u", Claims: map[string]any{"account": int64(9007199254740993),
			"n": json.Number("0.10")}}, true},
		"a struct":                   {authn.Subject{ID: "u", Claims: map[string]any{"m": marked{"x"}}}, true},
		"invalid UTF-8 in a claim":   {authn.Subject{ID: "u", Claims: map[string]any{"note": "\xff"}}, false},
		"invalid UTF-8 in a struct":  {authn.Subject{ID: "u", Claims: map[string]any{"m": marked{"\xff"}}}, false},
		"invalid UTF-8 in a name":    {authn.Subject{ID: "u", Claims: map[string]any{"a\xff": 1}}, false},
		"invalid UTF-8 in a role":    {authn.Subject{ID: "u", Roles: []string{"\xc3("}}, false},
		"invalid UTF-8 in the id":    {authn.Subject{ID: "\xff"}, false},
		"names that differ in case":  {authn.Subject{ID: "u", Claims: map[string]any{"Tenant": 1, "tenant": 2}}, false},
		"the name of another claim":  {authn.Subject{ID: "u", Claims: map[string]any{"ISS": "x"}}, false},
		"deep nesting":               {authn.Subject{ID: "u", Claims: map[string]any{"deep": deep}}, false},
		"a scope with a space":       {authn.Subject{ID: "u", Scopes: []string{"a b"}}, false},
		"a scope with a tab":         {authn.Subject{ID: "u", Scopes: []string{"a\tadmin"}}, false},
		"a scope with another space": {authn.Subject{ID: "u", Scopes: []string{"a\u00a0admin"}}, false},
		"a scope with a quote":       {authn.Subject{ID: "u", Scopes: []string{`a"b`}}, false},
		"a scope that is a URL":      {authn.Subject{ID: "u", Scopes: []string{"https://shop/orders:read?a=b"}}, true},
		"a mark of an ID token":      {authn.Subject{ID: "u", Claims: map[string]any{"at_hash": "x"}}, false},
		"the use of an ID token":     {authn.Subject{ID: "u", Claims: map[string]any{"token_use": "id"}}, false},
		"the use of an access token": {authn.Subject{ID: "u", Claims: map[string]any{"token_use": "access"}}, true},
		"events of a logout token":   {authn.Subject{ID: "u", Claims: map[string]any{"events": map[string]any{}}}, false},
		"scp as a number":            {authn.Subject{ID: "u", Claims: map[string]any{"scp": 1}}, false},
		"scp beside scopes": {authn.Subject{ID: "u", Scopes: []string{"a"}, Claims: map[string]any{"scp": 1}},
			true},
		"a claim that cannot be JSON": {authn.Subject{ID: "u", Claims: map[string]any{"f": func() {}}}, false},
	} {
		p, err := w.issuer.Issue(t.Context(), c.s)
		if (err == nil) != c.good {
			t.Errorf("%s: Issue: %v, want accepted: %v", name, err, c.good)
		}
		if err != nil {
			continue
		}
		for range 2 { // and after a refresh
			u, err := w.v.Verify(t.Context(), p.AccessToken)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for claim, want := range c.s.Claims {
				if a, b := mustJSON(t, u.Claims[claim]), mustJSON(t, want); a != b {
					t.Errorf("%s: %s is %s, want %s", name, claim, a, b)
				}
			}
			p, err = w.issuer.Refresh(t.Context(), p.RefreshToken, "")
			must(t, err)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return string(data)
}

func TestClaimsOf(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	p, err := w.issuer.Issue(t.Context(), authn.Subject{ID: "u", Claims: map[string]any{"account": int64(9007199254740993),
		"tenant": "acme"}})
	must(t, err)
	u, err := w.v.Verify(t.Context(), p.AccessToken)
	must(t, err)
	type own struct {
		Account int64  `json:"account"`
		Tenant  string `json:"tenant"`
	}
	for name, user := range map[string]*authn.User{"verified": u,
		"made by a test": {Claims: map[string]any{"account": int64(9007199254740993), "tenant": "acme"}}} {
		if got, err := authn.ClaimsOf[own](user); err != nil || got != (own{9007199254740993, "acme"}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if _, err := authn.ClaimsOf[struct {
		Tenant int `json:"tenant"`
	}](u); err == nil {
		t.Error("a text was decoded into a number")
	}
}

// Every error of the package has a status of its own, and none shows its text.
func TestWriteErrorHasAStatusForEverySentinel(t *testing.T) {
	for err, want := range map[error]int{
		authn.ErrForbidden: 403, authn.ErrNoToken: 401, authn.ErrToken: 401, authn.ErrExpired: 401, authn.ErrRevoked: 401,
		authn.ErrUnknownKey: 401,
		authn.ErrRefresh:    401, authn.ErrReused: 401, authn.ErrPassword: 401, authn.ErrPasswordTooLong: 401,
		authn.ErrClient: 401, authn.ErrAPIKey: 401,
		authn.ErrUnavailable: 503, errors.New("hush"): 500,
	} {
		for _, e := range []error{err, fmt.Errorf("orders: hush: %w", err)} {
			rec := httptest.NewRecorder()
			authn.WriteError(t.Context(), rec, e)
			challenge := rec.Header().Get("WWW-Authenticate")
			if rec.Code != want || (want == 401 || want == 403) != (challenge != "") || strings.Contains(rec.Body.String(),
				"hush") {
				t.Errorf("%v: got %d with the challenge %q, want %d", e, rec.Code, challenge, want)
			}
		}
	}
}

// A program's own requirement decides about a tenant.
func TestRequirementOfAProgram(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	errDown := errors.New("tenant service: hush")
	tenant := func(_ context.Context, u *authn.User) error {
		switch u.Claims["tenant"] {
		case "acme":
			return nil
		case "down":
			return errDown
		}
		return fmt.Errorf("tenant: %w", authn.ErrForbidden)
	}
	for name, want := range map[string]int{"acme": 200, "other": 403, "down": 500} {
		p, err := w.issuer.Issue(t.Context(), authn.Subject{ID: "u", Scopes: []string{"read"},
			Claims: map[string]any{"tenant": name}})
		must(t, err)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+p.AccessToken)
		rec := httptest.NewRecorder()
		authn.Require(w.v, authn.AnyScope("read", "write"),
			tenant)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("%s: got %d, want %d", name, rec.Code, want)
		}
	}
}

// A secret is replaced without refusing the tokens of the old one.
func TestSharedSecretRotates(t *testing.T) {
	old, current := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("n", 32))
	cfg := authn.IssuerConfig{Issuer: "x", Audience: []string{"y"}, Logger: quiet}
	before := authn.Must(authn.NewIssuer(authn.Must(authn.NewSecretKeySet(old)), authn.NewMemoryTokens(), cfg))
	keys := authn.Must(authn.NewSecretKeySet(current, old))
	after := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), cfg))
	v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "x", Audience: []string{"y"}, Logger: quiet}))
	only := authn.Must(authn.NewVerifier(authn.Must(authn.NewSecretKeySet(current)), authn.VerifierConfig{Issuer: "x",
		Audience: []string{"y"}, Logger: quiet}))
	for name, c := range map[string]struct {
		issuer *authn.Issuer
		v      *authn.Verifier
		want   bool
	}{"old": {before, v, true}, "new": {after, v, true}, "new, signed by the new one": {after, only, true},
		"old, after its end": {before, only, false}} {
		p, err := c.issuer.Issue(t.Context(), authn.Subject{ID: "u"})
		must(t, err)
		for range 2 {
			if _, err := c.v.Verify(t.Context(), p.AccessToken); (err == nil) != c.want {
				t.Errorf("%s: got %v, want accepted: %v", name, err, c.want)
			}
		}
	}
}

// No way of printing shows a shared secret.
func TestVerifyKeyDoesNotPrintItsSecret(t *testing.T) {
	const hush = "hush-hush-hush-hush-hush-hush-hush"
	found, err := authn.Must(authn.NewSecretKeySet([]byte(hush))).Keys(t.Context(), "", authn.HS256)
	must(t, err)
	for _, k := range []authn.VerifyKey{found[0], {Algorithm: authn.HS256, Public: []byte(hush)}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
			if s := fmt.Sprintf(verb, k); strings.Contains(s, "hush") || strings.Contains(s, "104") ||
				strings.Contains(s, "6875") {
				t.Errorf("%s prints %s", verb, s)
			}
		}
		if s := mustJSON(t, k); strings.Contains(s, "hush") {
			t.Errorf("JSON: %s", s)
		}
	}
}

// Scopes are separated by spaces only: other white space is a part of a scope, and gives no second one.
func TestScopesAreSeparatedBySpacesOnly(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	v := authn.Must(authn.NewVerifier(authn.Must(authn.NewSecretKeySet(secret)),
		authn.VerifierConfig{Issuer: issuerName, Audience: []string{"shop"}, Logger: quiet}))
	for scope, want := range map[string][]string{
		"a b":          {"a", "b"},
		" a  b ":       {"a", "b"},
		"a\u00a0admin": {"a\u00a0admin"},
		"a\tadmin":     {"a\tadmin"},
		"":             {},
	} {
		payload := fmt.Sprintf(`{"iss":%q,"aud":"shop","sub":"u","exp":%d,"scope":%s}`,
			issuerName, time.Now().Unix()+60, mustJSON(t, scope))
		u, err := v.Verify(t.Context(), hmacToken(secret, `{"alg":"HS256"}`, payload))
		if err != nil || !slices.Equal(u.Scopes, want) {
			t.Errorf("%q: got %q, %v, want %q", scope, u.Scopes, err, want)
		}
	}
}
