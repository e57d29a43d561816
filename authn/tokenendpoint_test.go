package authn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/sillar-go/sillar/authn"
)

func endpoint(w *world, cfg authn.TokenEndpointConfig) http.Handler {
	cfg.Logger = quiet
	return authn.TokenEndpoint(w.issuer, func(_ context.Context, username, password string) (authn.Subject, error) {
		switch {
		case username == "broken":
			return authn.Subject{}, errors.New("driver: password=hush")
		case username != "ana" || password != "secret":
			return authn.Subject{}, authn.ErrPassword
		}
		return authn.Subject{ID: "u1", Roles: []string{"user"}}, nil
	}, cfg)
}

// TestOAuth2Client uses the client that Go programs have: password grant, then a refresh when the token has expired.
func TestOAuth2Client(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	mux := http.NewServeMux()
	mux.Handle("POST /token", endpoint(w, authn.TokenEndpointConfig{}))
	mux.Handle("GET /me", authn.Require(w.v)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		u, _ := authn.FromContext(r.Context())
		_, _ = rw.Write([]byte(u.ID))
	})))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, srv.Client())
	conf := &oauth2.Config{ClientID: "web", Endpoint: oauth2.Endpoint{TokenURL: srv.URL + "/token"}}
	token, err := conf.PasswordCredentialsToken(ctx, "ana", "secret")
	must(t, err)
	if !token.Valid() || token.Type() != "Bearer" || token.RefreshToken == "" ||
		time.Until(token.Expiry) > 31*time.Minute {
		t.Errorf("token: %+v", token)
	}
	old := token.RefreshToken
	token.Expiry = time.Now().Add(-time.Second)
	res, err := conf.Client(ctx, token).Get(srv.URL + "/me")
	must(t, err)
	_ = res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("after the refresh: %d", res.StatusCode)
	}
	if _, err := w.store.Lookup(ctx, old); err == nil {
		t.Error("the refresh token is stored in the clear")
	}
	_, err = conf.PasswordCredentialsToken(ctx, "ana", "wrong")
	re, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok || re.ErrorCode != "invalid_grant" || re.Response.StatusCode != 400 {
		t.Errorf("wrong password: %v", err)
	}
}

func TestTokenEndpointErrors(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	public := endpoint(w, authn.TokenEndpointConfig{Attempts: -1})
	private := endpoint(w, authn.TokenEndpointConfig{Client: func(_ context.Context, id, secret string) error {
		if id == "unchecked" {
			return errors.New("dial tcp: hush")
		}
		if id == "unavailable" {
			return fmt.Errorf("%w: dial tcp: hush", authn.ErrUnavailable)
		}
		if id != "web" || secret != "s:/cret" {
			return authn.ErrClient
		}
		return nil
	}})
	checkTokenErrors(t, private, public)
}

// checkTokenErrors sends each request that the endpoint has to refuse.
func checkTokenErrors(t *testing.T, private, public http.Handler) {
	t.Helper()
	const form = "application/x-www-form-urlencoded"
	good := "grant_type=password&username=ana&password=secret"
	for _, c := range []struct {
		name, method, media, body, query string
		h                                http.Handler
		basic                            [2]string
		code                             int
		err                              string
	}{
		{name: "good", body: good, code: 200},
		{name: "GET", method: "GET", code: 405, err: "invalid_request"},
		{name: "JSON", media: "application/json", body: `{"grant_type":"password"}`, code: 400, err: "invalid_request"},
		{name: "in the query", query: "?" + good, code: 400, err: "invalid_request"},
		{name: "no grant", body: "username=ana", code: 400, err: "invalid_request"},
		{name: "other grant", body: "grant_type=client_credentials", code: 400, err: "unsupported_grant_type"},
		{name: "twice", body: good + "&username=root", code: 400, err: "invalid_request"},
		{name: "no password", body: "grant_type=password&username=ana", code: 400, err: "invalid_request"},
		{name: "unknown user", body: "grant_type=password&username=bob&password=secret", code: 400, err: "invalid_grant"},
		{name: "failure inside", body: "grant_type=password&username=broken&password=x", code: 500, err: "server_error"},
		{name: "refresh nothing", body: "grant_type=refresh_token", code: 400, err: "invalid_request"},
		{name: "refresh nonsense", body: "grant_type=refresh_token&refresh_token=x", code: 400, err: "invalid_grant"},
		{name: "too long", body: good + "&x=" + strings.Repeat("a", 20<<10), code: 400, err: "invalid_request"},
		{name: "broken form", body: "%zz", code: 400, err: "invalid_request"},
		{name: "client by basic", h: private, body: good, basic: [2]string{"web", url.QueryEscape("s:/cret")}, code: 200},
		{name: "client by form", h: private, body: good + "&client_id=web&client_secret=s%3A%2Fcret", code: 200},
		{name: "client cannot be checked", h: private, body: good, basic: [2]string{"unchecked", "x"}, code: 500,
			err: "server_error"},
		{name: "client check is down", h: private, body: good, basic: [2]string{"unavailable", "x"}, code: 503,
			err: "temporarily_unavailable"},
		{name: "two clients", h: private, body: good + "&client_id=other",
			basic: [2]string{"web", url.QueryEscape("s:/cret")}, code: 400, err: "invalid_request"},
		{name: "client wrong", h: private, body: good, basic: [2]string{"web", "x"}, code: 401, err: "invalid_client"},
		{name: "client twice", h: private, body: good + "&client_secret=x", basic: [2]string{"web", "x"}, code: 400,
			err: "invalid_request"},
	} {
		if c.method == "" {
			c.method = "POST"
		}
		if c.media == "" {
			c.media = form
		}
		if c.h == nil {
			c.h = public
		}
		r := httptest.NewRequest(c.method, "/token"+c.query, strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.media)
		if c.basic[0] != "" {
			r.SetBasicAuth(c.basic[0], c.basic[1])
		}
		rec := httptest.NewRecorder()
		c.h.ServeHTTP(rec, r)
		var body struct {
			Error  string `json:"error"`
			Access string `json:"access_token"`
		}
		must(t, json.Unmarshal(rec.Body.Bytes(), &body))
		if rec.Code != c.code || body.Error != c.err || (body.Access != "") != (c.code == 200) ||
			rec.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s %v", c.name, rec.Code, rec.Body, rec.Header())
		}
		if strings.Contains(rec.Body.String(), "hush") {
			t.Errorf("%s: the driver's text went out: %s", c.name, rec.Body)
		}
	}
}

func TestTokenEndpointLimit(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	h := endpoint(w, authn.TokenEndpointConfig{Attempts: 3, Every: time.Hour})
	password := "x"
	try := func(user, addr string) int {
		r := httptest.NewRequest("POST", "/token", strings.NewReader(url.Values{"grant_type": {"password"},
			"username": {user}, "password": {password}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = addr + ":1234"
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code == 429 && rec.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		return rec.Code
	}
	for i := range 5 {
		want := 400
		if i >= 3 {
			want = 429
		}
		if got := try("Ana", "10.0.0.1"); got != want {
			t.Errorf("attempt %d: %d", i, got)
		}
	}
	if got := try("ana", "10.0.0.1"); got != 429 {
		t.Errorf("in another case: %d", got)
	}
	if got := try("ana", "10.0.0.2"); got != 400 {
		t.Errorf("from elsewhere: %d", got)
	}
	if got := try("bob", "10.0.0.1"); got != 400 {
		t.Errorf("another user: %d", got)
	}
	h = endpoint(w, authn.TokenEndpointConfig{Attempts: 3, Every: time.Hour})
	password = "secret"
	for i := range 50 { // more than the address may fail
		if got := try("ana", "10.0.0.5"); got != 200 {
			t.Fatalf("right password %d: %d", i, got)
		}
	}
	password = "x"
	for i, want := range []int{400, 400, 400, 429} {
		if got := try("ana", "10.0.0.5"); got != want {
			t.Errorf("wrong password %d after right ones: %d", i, got)
		}
	}
	password = "secret"
	if got := try("ana", "10.0.0.5"); got != 429 {
		t.Errorf("the right password, found while waiting: %d", got)
	}
	password = "x"
	limited := 0
	for i := range 100 {
		if try(fmt.Sprint("user", i), "10.0.0.9") == 429 {
			limited++
		}
	}
	if limited != 70 {
		t.Errorf("one password for a hundred users: %d of 100 were limited", limited)
	}
}

// Attempts are wrong passwords: an outage uses up none.
func TestTokenEndpointLimitDuringAnOutage(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	h := endpoint(w, authn.TokenEndpointConfig{Attempts: 2, Every: time.Hour})
	post := func(username string) int {
		form := url.Values{"grant_type": {"password"}, "username": {username}, "password": {"x"}}
		r := httptest.NewRequest("POST", "/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Code
	}
	for range 100 {
		if code := post("broken"); code != 500 {
			t.Fatal(code)
		}
	}
	if a, b, c := post("ana"), post("ana"), post("ana"); a != 400 || b != 400 || c != 429 {
		t.Errorf("wrong passwords after an outage: %d %d %d", a, b, c)
	}
}

// A client with an IPv6 address usually has a whole network of them.
func TestTokenEndpointLimitOfANetwork(t *testing.T) {
	w := newWorld(t, authn.KeyConfig{}, authn.IssuerConfig{})
	h := endpoint(w, authn.TokenEndpointConfig{Attempts: 1, Every: time.Hour})
	for _, c := range []struct {
		from string
		want int
	}{{"[2001:db8::1]:1", 400}, {"[2001:db8::2]:2", 429}, {"[2001:db8:0:1::1]:1", 400}, {"192.0.2.1:1", 400},
		{"[::ffff:192.0.2.1]:1", 429}, {"192.0.2.2:1", 400}, {"@", 400}, {"@", 429}} {
		form := url.Values{"grant_type": {"password"}, "username": {"ana"}, "password": {"x"}}
		r := httptest.NewRequest("POST", "/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = c.from
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != c.want {
			t.Errorf("%s: %d, want %d", c.from, rec.Code, c.want)
		}
	}
}
