package gateway_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/gateway"
)

func (a answer) echo(t *testing.T) (e echo) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.text), &e); err != nil {
		t.Fatalf("%s: %q", a.Status, a.text)
	}
	return e
}

var receivedPaths = map[string]string{
	"/users": "/", "/users/": "/", "/users/token": "/token", "/users/7?a=1&a=2": "/7?a=1&a=2",
	"/users/a%20b%3Fc": "/a%20b%3Fc",
	"/users/admin":     "/base/", "/users/admin/x": "/base/x", "/users/administrator": "/administrator",
	"/kept/x": "/kept/x", "/v1": "/api/v1", "/v1/u/7": "/api/v1/u/7", "/files/a%2Fb%2fc": "/a%2Fb%2fc",
	"/users/a..b/.hidden": "/a..b/.hidden",
	"/usersX":             "404", "/": "404", "/user": "404", "/Users": "404",
	"/users/../kept": "400", "/users/%2e%2e/kept": "400", "/users/.%2E/kept": "400", "/users/./x": "400",
	"/users/a%2Fb": "400",
	`/users/a\b`:   "400", "/users/a%5Cb": "400", "/users/a%00b": "400", "/users/a%0d%0ab": "400",
	"/files/a%2F..%2Fb": "400", "/files/..%2Fb": "400",
}

func TestPathsArriveAsReceived(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/users", Upstreams: []string{up}},
		{Prefix: "/users/admin", Upstreams: []string{up + "/base"}},
		{Prefix: "/kept", Upstreams: []string{up}, KeepPrefix: true},
		{Prefix: "/v1", Upstreams: []string{up}, Rewrite: "/api/v1"},
		{Prefix: "/files", Upstreams: []string{up}, EncodedSlashes: true},
	}})
	for path, want := range receivedPaths {
		text := raw(t, url, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		_, body, _ := strings.Cut(text, "\r\n\r\n")
		got := strings.Fields(text)[1]
		if got == "200" {
			var e echo
			_ = json.Unmarshal([]byte(body[strings.Index(body, "{"):strings.LastIndex(body, "}")+1]), &e)
			if got = e.URI; len(e.Header["Accept-Encoding"]) > 0 {
				t.Errorf("%s: the gateway asks for %v of its own", path, e.Header["Accept-Encoding"])
			}
		}
		if got != want {
			t.Errorf("%s arrived as %s, want %s", path, got, want)
		}
	}
}

func TestConfigThatIsUnsafe(t *testing.T) {
	ok := gateway.Route{Prefix: "/a", Upstreams: []string{"http://a"}}
	for name, change := range map[string]func(*gateway.Config, *gateway.Route){
		"no auth":            func(c *gateway.Config, _ *gateway.Route) { c.Anonymous = false },
		"auth and anonymous": func(c *gateway.Config, _ *gateway.Route) { c.Auth = auth },
		"roles, no auth":     func(_ *gateway.Config, r *gateway.Route) { r.Roles = []string{"x"} },
		"no upstream":        func(_ *gateway.Config, r *gateway.Route) { r.Upstreams = nil },
		"upstream scheme":    func(_ *gateway.Config, r *gateway.Route) { r.Upstreams = []string{"file:///etc"} },
		"upstream user":      func(_ *gateway.Config, r *gateway.Route) { r.Upstreams = []string{"http://u:p@a"} },
		"prefix":             func(_ *gateway.Config, r *gateway.Route) { r.Prefix = "a" },
		"dots":               func(_ *gateway.Config, r *gateway.Route) { r.Prefix = "/a/../b" },
		"rewrite":            func(_ *gateway.Config, r *gateway.Route) { r.Rewrite = "b" },
		"public":             func(_ *gateway.Config, r *gateway.Route) { r.Public = []string{"POST token"} },
		"public **":          func(_ *gateway.Config, r *gateway.Route) { r.Public = []string{"/**/a"} },
		"rate":               func(_ *gateway.Config, r *gateway.Route) { r.RateLimit = &gateway.RateLimit{} },
		"breaker":            func(_ *gateway.Config, r *gateway.Route) { r.Breaker.Probes = -1 },
		"twice":              func(c *gateway.Config, _ *gateway.Route) { c.Routes = append(c.Routes, ok) },
		"cors": func(c *gateway.Config, _ *gateway.Route) {
			c.CORS = &gateway.CORS{Origins: []string{"*"}, Credentials: true}
		},
	} {
		r := ok
		c := gateway.Config{Anonymous: true}
		change(&c, &r)
		c.Routes = append(c.Routes, r)
		if _, err := gateway.New(c); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: the error shows a password: %v", name, err)
		}
	}
}

var roleChecks = []struct {
	method, path, authorization string
	want                        int
	challenge                   string
}{
	{"GET", "/users/7", "", 401, "Bearer"},
	{"GET", "/users/7", "Basic YTpi", 401, "Bearer"},
	{"GET", "/users/7", "Bearer nobody", 401, `Bearer error="expired"`},
	{"GET", "/users/7", "bearer ana", 200, ""},
	{"POST", "/users/token", "", 200, ""},
	{"POST", "/users/token", "Bearer nobody", 200, ""},
	{"GET", "/users/token", "", 401, "Bearer"},
	{"POST", "/users/token/x", "", 401, "Bearer"},
	{"POST", "/users//token", "", 401, "Bearer"},
	{"GET", "/users/health", "", 200, ""},
	{"HEAD", "/users/health/a/b", "", 200, ""},
	{"GET", "/users/healthy", "", 401, "Bearer"},
	{"GET", "/users/items/7/photo", "", 200, ""},
	{"GET", "/users/items/photo", "", 401, "Bearer"},
	{"GET", "/admin/x", "Bearer ana", 403, ""},
	{"GET", "/admin/x", "Bearer root", 200, ""},
}

func TestTokensAndRoles(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{Auth: auth, Routes: []gateway.Route{
		{Prefix: "/users", Upstreams: []string{up}, Public: []string{"POST /token", "GET /health/**", "/items/*/photo"}},
		{Prefix: "/admin", Upstreams: []string{up}, Roles: []string{"admin", "owner"}},
	}})
	for _, c := range roleChecks {
		h := []string{}
		if c.authorization != "" {
			h = []string{"Authorization", c.authorization}
		}
		a := do(t, c.method, url+c.path, "", h...)
		if a.StatusCode != c.want || a.Header.Get("WWW-Authenticate") != c.challenge {
			t.Errorf("%s %s with %q: %d %q, want %d %q", c.method, c.path, c.authorization, a.StatusCode,
				a.Header.Get("WWW-Authenticate"), c.want, c.challenge)
		}
		if a.StatusCode >= 400 {
			var p struct {
				Type, CorrelationID string
				ID                  string `json:"correlation_id"`
			}
			_ = json.Unmarshal([]byte(a.text), &p)
			if a.Header.Get("Content-Type") != "application/problem+json" || p.ID == "" ||
				p.ID != a.Header.Get("X-Correlation-ID") {
				t.Errorf("%d is no problem with a correlation id: %s", a.StatusCode, a.text)
			}
		}
	}
}

var forgedIdentity = []struct{ path, extra, id, email string }{
	{"/users/open", "", "", ""},
	{"/users/7", "Authorization: Bearer ana\r\nConnection: X-User-ID, X-User-Roles, close\r\n", "subject-of-ana",
		"ana@example.com"},
}

func TestIdentityHeadersAreTheGateways(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{Auth: auth, Claims: map[string]string{"email": "X-User-Email"},
		Routes: []gateway.Route{
			{Prefix: "/users", Upstreams: []string{up}, Public: []string{"/open"}},
		}})
	forged := "X-User-ID: root\r\nx-user-id: root\r\nX_User_Id: root\r\nX.User.ID: root\r\nX-USER_ROLES: " +
		"root\r\nx_user_roles: root\r\nX-User_Email: root\r\n" +
		"Forwarded: for=root\r\nX-Forwarded-For: root\r\nX_Forwarded_For: root\r\nX-Forwarded-Proto: root\r\nX-Real-IP: " +
		"root\r\nX_Correlation_ID: root\r\n"
	for _, c := range forgedIdentity {
		text := raw(t, url, "POST "+c.path+" HTTP/1.1\r\nHost: shop\r\n"+forged+c.extra+
			"Transfer-Encoding: chunked\r\nTrailer: X-User-ID, X-Other\r\n\r\n"+
			"1\r\nx\r\n0\r\nX-User-ID: root\r\nX-Other: y\r\n\r\n"+
			"GET /health HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
		_, body, _ := strings.Cut(text, "\r\n\r\n")
		var e echo
		if err := json.NewDecoder(strings.NewReader(body[strings.Index(body, "{"):])).Decode(&e); err != nil {
			t.Fatalf("%q", text)
		}
		for name, values := range e.Header {
			if slices.Contains(values, "root") {
				t.Errorf("%s: a forged %s arrived: %v", c.path, name, values)
			}
		}
		if len(e.Trailer) != 1 || e.Trailer.Get("X-Other") != "y" || e.Header.Get("X-User-ID") != c.id ||
			e.Header.Get("X-User-Email") != c.email || e.Body != "x" {
			t.Errorf("%s: %v", c.path, e)
		}
		if e.Header.Get("X-Forwarded-For") != "127.0.0.1" || e.Header.Get("X-Forwarded-Host") != "shop" ||
			e.Header.Get("X-Forwarded-Proto") != "http" {
			t.Errorf("%s: forwarding headers %v", c.path, e.Header)
		}
	}
}

func TestCorrelationIDIsKeptOrMade(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
	a := do(t, "GET", url+"/a", "", "X-Correlation-Id", "mine-1")
	if got := a.echo(t).Header["X-Correlation-Id"]; len(got) != 1 || got[0] != "mine-1" ||
		a.Header.Get("X-Correlation-ID") != "mine-1" {
		t.Fatalf("kept: %v %v", got, a.Header)
	}
	a = do(t, "GET", url+"/a", "", "X-Correlation-Id", "not valid!")
	if got := a.echo(t).Header.Get("X-Correlation-Id"); len(got) != 36 || a.Header.Get("X-Correlation-ID") != got {
		t.Fatalf("new: %q %v", got, a.Header)
	}
}

func TestOddRequestsAreRefusedOrPassed(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}},
		{Prefix: "/ws", Upstreams: []string{up}, Upgrade: true}}})
	for request, want := range map[string]string{
		"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n":                                    "405",
		"TRACE /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":                                           "405",
		"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n":              "400",
		"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n":                   "200",
		"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUpgrade: foo\r\n\r\n":                            "200",
		"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx": "400",
	} {
		if got := strings.Fields(raw(t, url, request) + " none none")[1]; got != want {
			t.Errorf("%q: %s, want %s", request, got, want)
		}
	}
}
