package live

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// policy is the Content-Security-Policy of the page: same origin only, nothing inline, no framing.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Loopback reports whether an address to listen on is reached from this machine alone.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.Unmap().IsLoopback()
}

// fromHere reports whether a request was made on this machine, to this machine: by a name that no foreign DNS server
// can give it (so that a rebound name is refused), and through no proxy that may speak for others.
func fromHere(r *http.Request) bool {
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !Loopback(name) || !Loopback(from) {
		return false
	}
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if len(r.Header[h]) > 0 {
			return false
		}
	}
	return true
}

// guard admits only requests from this machine (see fromHere). Other pages that are open in the same
// browser may neither read it nor use it.
func guard(next http.Handler) http.Handler {
	var cross http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		if !fromHere(r) {
			refuse(w, r, "this is for the machine on which the shop runs: open it by its address 127.0.0.1")
			return
		}
		if !slices.Contains([]string{"", "none", "same-origin"}, r.Header.Get("Sec-Fetch-Site")) || cross.Check(r) != nil {
			refuse(w, r, "another page may not do this")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, r *http.Request, why string) {
	platform.Fail(http.StatusForbidden, "forbidden", why).Write(r.Context(), w)
}

// secure sets what browsers hold the page to.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
