package live

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// The guard admits requests from this machine, and none from other pages of the browser.
func TestGuardAdmitsOnlyTheLocalPage(t *testing.T) {
	served := guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	here := func(method string) *http.Request {
		r := httptest.NewRequest(method, "http://127.0.0.1:8080/live/place", nil)
		r.RemoteAddr = "127.0.0.1:4711"
		return r
	}
	with := func(method, name, value string) *http.Request {
		r := here(method)
		r.Header.Set(name, value)
		return r
	}
	host := func(h string) *http.Request {
		r := here("POST")
		r.Host = h
		return r
	}
	far := here("GET")
	far.RemoteAddr = "192.0.2.1:4711"
	for what, c := range map[string]struct {
		r    *http.Request
		want int
	}{
		"a browser here":                      {with("POST", "Sec-Fetch-Site", "same-origin"), 204},
		"an address that was typed":           {with("GET", "Sec-Fetch-Site", "none"), 204},
		"curl":                                {here("POST"), 204},
		"localhost":                           {host("localhost:8080"), 204},
		"IPv6":                                {host("[::1]:8080"), 204},
		"an older browser here":               {with("POST", "Origin", "http://127.0.0.1:8080"), 204},
		"another site's form":                 {with("POST", "Sec-Fetch-Site", "cross-site"), 403},
		"another port's form":                 {with("POST", "Sec-Fetch-Site", "same-site"), 403},
		"another site's form, older browser":  {with("POST", "Origin", "https://evil.example"), 403},
		"another port, older browser":         {with("POST", "Origin", "http://127.0.0.1:9999"), 403},
		"a form of a page without an origin":  {with("POST", "Origin", "null"), 403},
		"another site's EventSource":          {with("GET", "Sec-Fetch-Site", "cross-site"), 403},
		"a name that was bound to this place": {host("evil.example:8080"), 403},
		"a name that begins like localhost":   {host("localhost.evil.example"), 403},
		"no name":                             {host(""), 403},
		"another machine":                     {far, 403},
		"a proxy that speaks for others":      {with("GET", "X-Forwarded-For", "192.0.2.1"), 403},
	} {
		w := httptest.NewRecorder()
		served.ServeHTTP(w, c.r)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", what, w.Code, c.want)
		}
		if w.Header().Get("Content-Security-Policy") != policy {
			t.Errorf("%s: no policy", what)
		}
	}
}

func TestLoopbackAddressesAreRecognised(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1": true, "127.1.2.3": true, "::1": true, "[::1]": true,
		"localhost": true,
		"":          false, "0.0.0.0": false, "::": false, "192.168.1.2": false, "shop.example": false,
		"127.0.0.1.example": false} {
		if Loopback(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

// All that the page loads, as it would be sent, is small; and nothing in it needs more than the policy allows.
func TestAssetsAreSmallAndAllowedByThePolicy(t *testing.T) {
	const most = 75 << 10
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	files, err := assets.ReadDir(".")
	if err != nil || len(files) != 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		text, err := assets.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(text); err != nil {
			t.Fatal(err)
		}
		foreign := regexp.MustCompile(`(?i)<script>|\son[a-z]+=|\sstyle=|javascript:|https?://[^"]*"|@import|eval\(`)
		if m := foreign.FindString(string(text)); m != "" && !strings.Contains(m, "www.w3.org/2000/svg") {
			t.Errorf("%s has %q, which the policy forbids", f.Name(), m)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", packed.Len())
	if packed.Len() > most {
		t.Errorf("%d bytes, more than %d", packed.Len(), most)
	}
}
