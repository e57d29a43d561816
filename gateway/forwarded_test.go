package gateway_test

import (
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

// What a trusted proxy says of the outside goes on to the service and into the log; what anyone else says does not.
func TestForwardedByTrustedProxies(t *testing.T) {
	said := []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Port", "8443", "X-Forwarded-Prefix", "/eu/",
		"X-Forwarded-Proto", "wss, http"}
	for name, c := range map[string]struct {
		trusted []netip.Prefix
		said    []string
		want    [3]string // port, prefix, proto
		remote  string
	}{
		"trusted": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, said, [3]string{"8443", "/eu/a", "https"},
			"remote=6.6.6.6 "},
		"a list": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Port", "443, 80"},
			[3]string{"443", "/a", "http"}, "remote=127.0.0.1 "},
		"no port": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Port", "99999"},
			[3]string{"", "/a", "http"}, "remote=127.0.0.1 "},
		"no path": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Prefix", "//evil.example"},
			[3]string{"", "/a", "http"}, "remote=127.0.0.1 "},
		"a climber": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Prefix", "/a/../b"},
			[3]string{"", "/a", "http"}, "remote=127.0.0.1 "},
		"no clean path": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []string{"X-Forwarded-Prefix", `/a"<b>?`},
			[3]string{"", "/a", "http"}, "remote=127.0.0.1 "},
		"untrusted": {nil, said, [3]string{"", "/a", "http"}, "remote=127.0.0.1:"},
		"elsewhere": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, said, [3]string{"", "/a", "http"},
			"remote=127.0.0.1 "},
	} {
		log := &logs{}
		_, url := start(t, gateway.Config{
			Auth: auth, TrustedProxies: c.trusted, Logger: slog.New(slog.NewTextHandler(log, nil)),
			Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}, Public: []string{"/**"}}},
		})
		h := do(t, "GET", url+"/a/x", "", c.said...).echo(t).Header
		if got := [3]string{h.Get("X-Forwarded-Port"), h.Get("X-Forwarded-Prefix"),
			h.Get("X-Forwarded-Proto")}; got != c.want {
			t.Errorf("%s: the service heard %q, want %q", name, got, c.want)
		}
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(log.String()+" ",
			c.remote); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s: the log lacks %q: %s", name, c.remote, log)
				break
			}
		}
	}
}

// A proxy with a link-local address has a zone in it.
func TestTrustedProxiesWithAZone(t *testing.T) {
	log := &logs{}
	gw, _ := start(t, gateway.Config{
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("fe80::/10")}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Routes: []gateway.Route{{Prefix: "/a", Upstreams: []string{echoing(t)}}},
	})
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/nowhere", nil)
	r.RemoteAddr = "[fe80::1%eth0]:1234"
	r.Header.Set("X-Forwarded-For", "6.6.6.6")
	gw.ServeHTTP(httptest.NewRecorder(), r)
	if !strings.Contains(log.String(), "remote=6.6.6.6 ") {
		t.Errorf("the log lacks the client that the proxy names: %s", log)
	}
}
