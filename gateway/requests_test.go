package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/gateway"
)

// authFunc is an Authenticator.
type authFunc func() (map[string]any, error)

func (f authFunc) Authenticate(context.Context, string) (string, []string, map[string]any, error) {
	claims, err := f()
	return "ana", nil, claims, err
}

type temporary struct{ error }

func (temporary) Temporary() bool { return true }

// Who cannot tell must not say that the token is bad: clients would log everybody out.
func TestAuthenticatorThatCannotTell(t *testing.T) {
	var fail error
	_, url := start(t, gateway.Config{Auth: authFunc(func() (map[string]any, error) { return nil, fail }),
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"says so":     {fmt.Errorf("keys: %w", temporary{errors.New("hush")}), 503},
		"too late":    {fmt.Errorf("keys: %w", context.DeadlineExceeded), 503},
		"the network": {fmt.Errorf("keys: %w", &net.OpError{Op: "dial", Err: errors.New("connection refused")}), 503},
		"a challenge": {challenged{temporary{errors.New("hush")}}, 401},
		"says naught": {errors.New("no such token"), 401},
	} {
		fail = c.err
		a := do(t, "GET", url+"/a", "", "Authorization", "Bearer x")
		if a.StatusCode != c.want || strings.Contains(a.text, "hush") ||
			(c.want == 503) != (a.Header.Get("Retry-After") != "") ||
			(c.want == 401) != (a.Header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
		}
	}
}

// An instance that does not end its 503 keeps no request from the next one.
func TestRetryPastABodyThatHangs(t *testing.T) {
	release := make(chan struct{})
	hanging := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "one moment")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	fine := upstream(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{hanging, fine}, Balance: gateway.RoundRobin,
			Breaker: breaker.Config{Failures: -1}}}})
	for range 2 { // one of them meets the hanging one first
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		req, _ := http.NewRequestWithContext(ctx, "GET", url+"/a", nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
		} else if text, err := io.ReadAll(res.Body); string(text) != "fine" {
			t.Errorf("%d %q %v", res.StatusCode, text, err)
		}
		cancel()
	}
}

// A status that no server may send is the service's fault, and no panic of the gateway's.
func TestStatusThatIsNone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 042 What\r\nContent-Length: 0\r\n\r\n")
			_ = c.Close()
		}
	}()
	thousands, _ := http2Instance(t, func(f *http2.Framer, stream uint32) {
		var block bytes.Buffer
		_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "1234"})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true,
			EndStream: true})
	})
	for _, up := range []string{"http://" + l.Addr().String(), thousands} {
		_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}}}})
		if a := do(t, "GET", url+"/a", ""); a.StatusCode != 502 {
			t.Errorf("%d %s", a.StatusCode, a.text)
		}
	}
}

// An instance that changes the protocol unasked fails, and holds neither a connection nor a request.
func TestProtocolChangedUnasked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ended := make(chan error, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, "HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nabc")
				_, err := c.Read(make([]byte, 1))
				ended <- err
			}()
		}
	}()
	for name, header := range map[string][]string{
		"unasked": nil, "another": {"Connection", "Upgrade", "Upgrade", "websocket"},
	} {
		t.Run(name, func(t *testing.T) {
			gw, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Attempts: 1, Upgrade: true,
				Upstreams: []string{"http://" + l.Addr().String()}}}})
			if a := do(t, "GET", url+"/a", "", header...); a.StatusCode != 502 {
				t.Errorf("got %s, want 502", a.Status)
			}
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Error("the connection to the instance stays open")
			}
			if counts, inFlight := gw.OnlyInstance(); counts.Failures != 1 || inFlight != 0 {
				t.Errorf("got %d failures and %d requests in flight, want 1 and 0", counts.Failures, inFlight)
			}
		})
	}
}

// A middleware that cannot hand the client's connection over leaves that to the instance closed.
func TestUpgradeThatTheClientCannotGet(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = c.Read(make([]byte, 1)) // until the gateway closes it
	})
	gw, url := start(t, gateway.Config{
		Middleware: map[string]func(http.Handler) http.Handler{"plain": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
			})
		}},
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{up}, Upgrade: true, Middleware: []string{"plain"}}},
	})
	if a := do(t, "GET", url+"/a", "", "Connection", "Upgrade", "Upgrade", "websocket"); a.StatusCode != 502 {
		t.Errorf("got %s, want 502", a.Status)
	}
	if _, inFlight := gw.OnlyInstance(); inFlight != 0 {
		t.Errorf("%d requests are in flight, want 0", inFlight)
	}
}

// A request for a proxy that names no path is one for /.
func TestAbsoluteTargetWithoutPath(t *testing.T) {
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/", Upstreams: []string{echoing(t)}}}})
	for _, target := range []string{"http://x", "http://x?a=b"} {
		text := raw(t, url, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.Contains(text, `"URI":"/`+strings.TrimPrefix(target, "http://x")) {
			t.Errorf("%s: got %.200q", target, text)
		}
	}
}

// The gateway reads no parameters, so it has no reason to mend them.
func TestQueriesPassAsTheyAre(t *testing.T) {
	_, url := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	for _, query := range []string{"b=2&a=1", "q=50%", "a=1;b=2", "x=%zz&y=1", "flag", "a=+%20"} {
		text := raw(t, url, "GET /a/x?"+query+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.Contains(text, `"/x?`+strings.ReplaceAll(query, "&", `\u0026`)+`"`) {
			t.Errorf("%s arrived in %s", query, text)
		}
	}
}

func TestClaimsOfEveryType(t *testing.T) {
	claims := map[string]any{"tenant": 12345678.0, "share": 0.25, "staff": true, "groups": []any{"a", "b"}, "none": nil,
		"name": "Ana"}
	names := map[string]string{}
	for claim := range claims {
		names[claim] = "X-Claim-" + claim
	}
	_, url := start(t, gateway.Config{Auth: authFunc(func() (map[string]any, error) { return claims, nil }), Claims: names,
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}}})
	got := do(t, "GET", url+"/a", "", "Authorization", "Bearer x").echo(t).Header
	for name, want := range map[string]string{"Tenant": "12345678", "Share": "0.25", "Staff": "true",
		"Groups": "%5B%22a%22%2C%22b%22%5D", "Name": "Ana"} {
		if v := got["X-Claim-"+name]; len(v) != 1 || v[0] != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if v, there := got["X-Claim-None"]; there {
		t.Errorf("a claim that is null arrived as %q", v)
	}
}

// Another spelling of a path does not select the rules of another route: the service would take it for the plain path.
func TestOtherSpellingsChooseNoOtherRoute(t *testing.T) {
	up := echoing(t)
	_, url := start(t, gateway.Config{Auth: auth, Routes: []gateway.Route{
		{Prefix: "/users", Upstreams: []string{up}, Public: []string{"/static/**"}},
		{Prefix: "/users/admin", Upstreams: []string{up + "/admin"}, Roles: []string{"admin"}},
		{Prefix: "/caf%C3%A9", Upstreams: []string{up}},
	}})
	for path, want := range map[string]string{
		"/users/admin/x": "403", "/users/7": "200", "/users/a;v=1": "200", "/users/a//b": "200", "/users/%61": "200",
		"/caf%C3%A9/x": "200", "/caf%c3%a9/x": "400",
		"/users/%61dmin/x": "400", "/users//admin/x": "400", "/users/admin;v=1/x": "400", "//users/admin/x": "400",
		"/users/%2561dmin":          "200",
		"/users/static/..;/admin/x": "400", "/users/static/..%3B/admin/x": "400", "/users/static/.;a=b/x": "400",
	} {
		text := raw(t, url, "GET "+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ana\r\nConnection: close\r\n\r\n")
		if got := strings.Fields(text)[1]; got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if _, err := gateway.New(gateway.Config{Anonymous: true, Routes: []gateway.Route{
		{Prefix: "/a", Upstreams: []string{up}}, {Name: "b", Prefix: "/%61", Upstreams: []string{up}}}}); err == nil {
		t.Error("two spellings of one prefix: no error")
	}
}

func TestFallbackThatStreamsAndPanics(t *testing.T) {
	log := &logs{}
	_, url := start(t, gateway.Config{Logger: slog.New(slog.NewTextHandler(log, nil)),
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}},
		CORS:   &gateway.CORS{Origins: []string{"https://shop.example"}},
		Fallback: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic(http.ErrAbortHandler)
			}
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "data: 1\n\n")
		})})
	a := do(t, "GET", url+"/events", "", "Origin", "https://shop.example")
	if a.StatusCode != 200 || a.text != "data: 1\n\n" || a.Header.Get("X-Correlation-ID") == "" ||
		a.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("%d %q %v", a.StatusCode, a.text, a.Header)
	}
	if text := raw(t, url, "GET /panic HTTP/1.1\r\nHost: x\r\n\r\n"); text != "" {
		t.Errorf("%q", text)
	}
	for began := time.Now(); !strings.Contains(log.String(), "path=/panic") && time.Since(began) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(log.String(), "path=/panic route=\"\" status=500") {
		t.Errorf("the log says %s", log)
	}
}

func TestConfigThatCannotWork(t *testing.T) {
	for name, cfg := range map[string]gateway.Config{
		"a header with a space":         {Claims: map[string]string{"email": "X User Email"}},
		"a header of the connection":    {Claims: map[string]string{"email": "Connection"}},
		"a header of the gateway":       {Claims: map[string]string{"email": "X-User-ID"}},
		"the token's header":            {Claims: map[string]string{"email": "Authorization"}},
		"two claims in a header":        {Claims: map[string]string{"a": "X-Claim", "b": "x_claim"}},
		"an origin with a path":         {CORS: &gateway.CORS{Origins: []string{"https://shop.example/"}}},
		"an origin without a scheme":    {CORS: &gateway.CORS{Origins: []string{"shop.example"}}},
		"a proxy that is no network":    {TrustedProxies: []netip.Prefix{{}}},
		"a proxy that no address has":   {TrustedProxies: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
		"a health interval that is off": {HealthInterval: -1},
	} {
		cfg.Anonymous = true
		cfg.Routes = []gateway.Route{{Prefix: "/a", Upstreams: []string{"http://a"}}}
		if _, err := gateway.New(cfg); (err == nil) != (cfg.HealthInterval < 0) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A * is one segment to the service, too.
func TestPublicPatternsAndEncodedSlashes(t *testing.T) {
	_, url := start(t, gateway.Config{Auth: auth, Routes: []gateway.Route{
		{Prefix: "/files", Upstreams: []string{echoing(t)}, EncodedSlashes: true, Public: []string{"/*", "/open/**"}}}})
	for path, want := range map[string]int{"/files/a": 200, "/files/a%2Fsecret": 401, "/files/open/a%2fb": 200} {
		if a := do(t, "GET", url+path, ""); a.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, a.StatusCode, want)
		}
	}
}

// What was being looked at when the routes changed is not remembered.
func TestReloadDuringALook(t *testing.T) {
	begun, reloaded := make(chan struct{}), make(chan struct{})
	slow := upstream(t, func(http.ResponseWriter, *http.Request) { close(begun); <-reloaded })
	fine := upstream(t, func(http.ResponseWriter, *http.Request) {})
	gw, _ := start(t, gateway.Config{Routes: []gateway.Route{{Prefix: "/old", Upstreams: []string{slow}}}})
	looked := make(chan error)
	go func() { _, err := gw.Services(context.Background()); looked <- err }()
	<-begun
	if err := gw.Reload([]gateway.Route{{Prefix: "/new", Upstreams: []string{fine}}}); err != nil {
		t.Fatal(err)
	}
	close(reloaded)
	if err := <-looked; err != nil {
		t.Fatal(err)
	}
	if all, err := gw.Services(t.Context()); err != nil || all["new"].Status != "up" || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
}
