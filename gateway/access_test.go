package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/sillar-go/sillar/gateway"
)

// Who may read what names the services: by default callers that a route admits.
func TestDocumentsArePrivate(t *testing.T) {
	up := echoing(t)
	admin := gateway.Route{Prefix: "/admin", Upstreams: []string{up}, Roles: []string{"admin"}}
	any := gateway.Route{Prefix: "/any", Upstreams: []string{up}, Public: []string{"/**"}}
	for name, c := range map[string]struct {
		cfg                     gateway.Config
		stranger, invalid, ana1 int
		root                    int
	}{
		"every route wants a role": {gateway.Config{Auth: auth, Routes: []gateway.Route{admin}}, 401, 401, 403, 200},
		"a route wants none":       {gateway.Config{Auth: auth, Routes: []gateway.Route{admin, any}}, 401, 401, 200, 200},
		"roles of their own": {gateway.Config{Auth: auth, DocumentRoles: []string{"admin"},
			Routes: []gateway.Route{any}}, 401, 401, 403, 200},
		"public":    {gateway.Config{Auth: auth, PublicDocuments: true, Routes: []gateway.Route{admin}}, 200, 200, 200, 200},
		"anonymous": {gateway.Config{Routes: []gateway.Route{any}}, 200, 200, 200, 200},
	} {
		_, url := start(t, c.cfg)
		for _, path := range []string{"/openapi.json", "/health/services"} {
			for token, want := range map[string]int{"": c.stranger, "Bearer nobody": c.invalid, "Bearer ana": c.ana1,
				"Bearer root": c.root} {
				var header []string
				if token != "" {
					header = []string{"Authorization", token}
				}
				if a := do(t, "GET", url+path, "", header...); a.StatusCode != want || want >= 400 &&
					strings.Contains(a.text, "admin") {
					t.Errorf("%s: %s of %q: got %s %s, want %d", name, path, token, a.Status, a.text, want)
				}
			}
		}
		if a := do(t, "GET", url+"/health", ""); a.StatusCode != 200 {
			t.Errorf("%s: /health: got %s, want it public", name, a.Status)
		}
	}
}

// A cookie is a token where the route says so, and not for pages of other origins.
func TestTokenOfACookie(t *testing.T) {
	_, url := start(t, gateway.Config{
		Auth: auth, CORS: &gateway.CORS{Origins: []string{"https://app.example"}, Credentials: true},
		Routes: []gateway.Route{
			{Prefix: "/a", Upstreams: []string{echoing(t)}, TokenCookie: "session", Upgrade: true},
			{Prefix: "/no", Upstreams: []string{echoing(t)}},
		},
	})
	host := strings.TrimPrefix(url, "http://")
	for name, c := range map[string]struct {
		method, path string
		header       []string
		want         int
	}{
		"a cookie":                 {"POST", "/a", []string{"Cookie", "session=ana"}, 200},
		"where no route allows it": {"POST", "/no", []string{"Cookie", "session=ana"}, 401},
		"of another name":          {"POST", "/a", []string{"Cookie", "other=ana"}, 401},
		"twice":                    {"POST", "/a", []string{"Cookie", "session=ana; session=root"}, 401},
		"not valid":                {"POST", "/a", []string{"Cookie", "session=nobody"}, 401},
		"beside a token that is not valid": {"POST", "/a", []string{"Cookie", "session=ana", "Authorization",
			"Bearer nobody"}, 401},
		"beside another scheme": {"POST", "/a", []string{"Cookie", "session=ana", "Authorization", "Basic YTpi"},
			401},
		"of another site": {"POST", "/a", []string{"Cookie", "session=ana", "Sec-Fetch-Site", "cross-site"},
			403},
		"of another site, a GET": {"GET", "/a", []string{"Cookie", "session=ana", "Sec-Fetch-Site", "cross-site"},
			200},
		"of another origin": {"POST", "/a", []string{"Cookie", "session=ana", "Origin",
			"https://evil.example"}, 403},
		"of an origin that CORS allows": {"POST", "/a", []string{"Cookie", "session=ana", "Origin", "https://app.example",
			"Sec-Fetch-Site", "same-site"}, 200},
		"of the same origin": {"POST", "/a", []string{"Cookie", "session=ana", "Origin", "http://" + host},
			200},
		"a token, of another site": {"POST", "/a", []string{"Authorization", "Bearer ana", "Sec-Fetch-Site",
			"cross-site"}, 200},
		"a WebSocket of another site": {"GET", "/a", []string{"Cookie", "session=ana", "Origin", "https://evil.example",
			"Connection", "Upgrade", "Upgrade", "websocket"}, 403},
		"a WebSocket, Upgrade in capitals": {"GET", "/a", []string{"Cookie", "session=ana", "Origin", "https://evil.example",
			"Connection", "upgrade", "Upgrade", "WebSocket"}, 403},
	} {
		if a := do(t, c.method, url+c.path, "", c.header...); a.StatusCode != c.want {
			t.Errorf("%s: got %s, want %d", name, a.Status, c.want)
		}
	}
}

// A WebSocket subprotocol is a token where the route says so. The service does not see it.
func TestTokenOfASubprotocol(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"app", "bearer.ana"}})
		if err != nil {
			return
		}
		_ = c.Write(r.Context(), websocket.MessageText, []byte(r.Header.Get("X-User-ID")+" "+
			strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ",")))
		_, _, _ = c.Read(r.Context())
		_ = c.CloseNow()
	})
	_, url := start(t, gateway.Config{Auth: auth, Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{up}, Upgrade: true, TokenProtocol: "bearer."},
		{Prefix: "/no", Upstreams: []string{up}, Upgrade: true},
		{Prefix: "/echo", Upstreams: []string{echoing(t)}, Upgrade: true, TokenProtocol: "bearer."},
	}})
	checkSubprotocols(t, url)
	// Only a WebSocket has subprotocols, and a token that does not count is removed all the same.
	if a := do(t, "GET", url+"/echo", "", "Sec-Websocket-Protocol", "bearer.ana"); a.StatusCode != 401 {
		t.Errorf("without an upgrade: got %s, want 401", a.Status)
	}
	a := do(t, "GET", url+"/echo", "", "Authorization", "Bearer ana", "Sec-Websocket-Protocol", "bearer.root")
	if got := a.echo(t).Header["Sec-Websocket-Protocol"]; got != nil {
		t.Errorf("the service saw %v", got)
	}
}

// checkSubprotocols dials with tokens in place of subprotocols.
func checkSubprotocols(t *testing.T, url string) {
	t.Helper()
	dial := func(path string, protocols ...string) (*websocket.Conn, int) {
		c, res, err := websocket.Dial(t.Context(), url+path, &websocket.DialOptions{Subprotocols: protocols})
		if err != nil && res == nil {
			t.Fatal(err)
		}
		return c, res.StatusCode
	}
	c, status := dial("/a", "bearer.ana", "app")
	if status != 101 {
		t.Fatalf("got %d, want 101", status)
	}
	_, text, err := c.Read(t.Context())
	if want := "subject-of-ana app"; err != nil || string(text) != want || c.Subprotocol() != "app" {
		t.Errorf("the service saw %q, %v, and chose %q; want %q", text, err, c.Subprotocol(), want)
	}
	_ = c.CloseNow()
	for _, wrong := range [][]string{{"/no", "bearer.ana", "app"}, {"/a", "bearer.nobody", "app"}, {"/a", "app"},
		{"/a", "bearer.ana", "bearer.root"}} {
		if c, status := dial(wrong[0], wrong[1:]...); status != 401 {
			t.Errorf("%v: got %d, want 401", wrong, status)
			_ = c.CloseNow()
		}
	}
}

var foldedPaths = []struct {
	method, path string
	want         int
	uri          string
}{
	{"GET", "/users/Seven", 200, "/Seven"},
	{"GET", "/USERS/Seven?Q=1", 200, "/Seven?Q=1"},
	{"GET", "/USERS/%53even", 200, "/%53even"},
	{"GET", "/users/ADMIN/x", 403, ""},
	{"GET", "/Users/Admin", 403, ""},
	{"GET", "/users/%c3%84", 403, ""},
	{"GET", "/users/%C3%A4", 400, ""}, // a service takes it for the same
	{"GET", "/users/adm%49n", 400, ""},
}

// Services that fold case get paths in any case, by the rules of the routes that they mean.
func TestFoldCase(t *testing.T) {
	up := echoing(t)
	routes := []gateway.Route{
		{Prefix: "/Users", Upstreams: []string{up}, Public: []string{"POST /Token"}},
		{Prefix: "/users/admin", Upstreams: []string{up}, Roles: []string{"admin"}},
		{Prefix: "/users/%C3%84", Upstreams: []string{up}, Roles: []string{"admin"}},
	}
	_, url := start(t, gateway.Config{Auth: auth, FoldCase: true, Routes: routes})
	for _, c := range foldedPaths {
		a := do(t, c.method, url+c.path, "", "Authorization", "Bearer ana")
		if a.StatusCode != c.want || c.uri != "" && a.echo(t).URI != c.uri {
			t.Errorf("%s: got %s %s, want %d %s", c.path, a.Status, a.text, c.want, c.uri)
		}
	}
	for path, want := range map[string]int{"/users/TOKEN": 200, "/USERS/token": 200, "/users/tokens": 401} {
		if a := do(t, "POST", url+path, ""); a.StatusCode != want {
			t.Errorf("POST %s: got %s, want %d", path, a.Status, want)
		}
	}
	_, url = start(t, gateway.Config{Auth: auth, Routes: routes[1:2]})
	if a := do(t, "GET", url+"/users/ADMIN", "", "Authorization", "Bearer root"); a.StatusCode != 404 {
		t.Errorf("without FoldCase: got %s, want 404", a.Status)
	}
}
