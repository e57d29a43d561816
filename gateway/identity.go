package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// owned are the headers that only the gateway sets, or that some service takes for the address of a client, in lower
// case.
var owned = []string{
	"x-user-id", "x-user-roles", "forwarded", "x-forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip",
	"true-client-ip", "client-ip",
	"cf-connecting-ip", "cf-connecting-ipv6", "fastly-client-ip", "x-remote-ip", "x-remote-addr", "x-rewrite-url",
	"x-envoy-external-address",
	"x-azure-clientip", "x-appengine-user-ip", "x-proxyuser-ip", "proxy-client-ip", "wl-proxy-client-ip",
	"fly-client-ip", "do-connecting-ip", "x-host", "x-http-host-override", "x-scheme", "x-url-scheme", "front-end-https",
	"proxy", // CGI makes HTTP_PROXY of it, through which many clients send their requests
	"content-length", "transfer-encoding",
}

// aliased are owned headers whose proper spelling a client may send. The servers on both sides handle these.
var aliased = map[string]bool{"Content-Length": true, "Transfer-Encoding": true}

// ownedPrefixes begin the names of whole families.
var ownedPrefixes = []string{"x-forwarded-", "x-original-"}

// identity is who calls.
type identity struct {
	subject string
	roles   []string
	claims  map[string]any
}

// folded is a header's name as careless servers read it: CGI and its descendants make one character of all that are
// neither letters nor digits.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
}

// owns reports whether a request of a client must not have the header, under any alias.
func (g *Gateway) owns(name string) bool {
	if len(name) < minOwned || g.ownedShapes[first(name)]&shape(name) == 0 || aliased[name] {
		return false
	}
	f := folded(name)
	if _, ok := g.owned[f]; ok {
		return true
	}
	return slices.ContainsFunc(ownedPrefixes, func(p string) bool { return strings.HasPrefix(f, p) })
}

// shape is a bit for the length of a name. With the first letter it excludes most headers, without
// folding them.
func shape(name string) uint64 { return 1 << min(len(name), 63) }

// first is the first character of a name as folded makes it.
func first(name string) byte {
	switch c := name[0]; {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '-'
}

// own adds a folded name to those that the gateway owns.
func (g *Gateway) own(name string) {
	g.owned[name] = struct{}{}
	g.ownedShapes[name[0]] |= shape(name)
}

// minOwned is the length of the shortest name that can be owned.
const minOwned = 5

// removeOwned removes the headers that the gateway owns.
func (g *Gateway) removeOwned(h http.Header) {
	for name := range h {
		if g.owns(name) {
			delete(h, name)
		}
	}
}

// neverTrailers would steer a service that treats trailers as headers: RFC 9110, 6.5.1.
var neverTrailers = map[string]bool{
	"Authorization": true, "Cookie": true, "Cache-Control": true, "Connection": true, "Content-Encoding": true,
	"Content-Length": true,
	"Content-Range":  true, "Content-Type": true, "Expect": true, "Host": true, "Idempotency-Key": true,
	"Keep-Alive":   true,
	"Max-Forwards": true, "Pragma": true, "Proxy-Authorization": true, "Proxy": true, "Proxy-Connection": true,
	"Range": true, "Te": true,
	"Trailer":           true,
	"Transfer-Encoding": true, "Upgrade": true, "Traceparent": true, "Tracestate": true, "Baggage": true,
}

// trailers are the names of declared, those that the client said would come after the body, that may pass.
func (g *Gateway) trailers(declared http.Header) http.Header {
	var pass http.Header
	for name := range declared {
		if g.owns(name) || neverTrailers[name] || strings.HasPrefix(name, "If-") {
			continue
		}
		if pass == nil {
			pass = http.Header{}
		}
		pass[name] = nil
	}
	return pass
}

// setIdentity sets the headers that say who calls. The headers were removed before.
func (g *Gateway) setIdentity(h http.Header, who *identity) {
	if who == nil {
		return
	}
	roles := ""
	for i, r := range who.roles {
		if i > 0 {
			roles += ","
		}
		roles += headerValue(r)
	}
	values := [...]string{headerValue(who.subject), roles} // under canonical names, which Set would have to make
	h["X-User-Id"], h["X-User-Roles"] = values[0:1:1], values[1:2:2]
	for claim, header := range g.cfg.Claims {
		if v, ok := who.claims[claim]; ok && v != nil {
			h.Set(header, headerValue(claimText(v)))
		}
	}
}

// claimText writes a text as it is and everything else as JSON, but numbers without an exponent: so that ids keep their
// digits.
func claimText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	text, err := json.Marshal(v)
	if err != nil { // an authenticator's own type
		return fmt.Sprint(v)
	}
	return string(text)
}

// passes reports whether a header of the name reaches a service as it was set, and means nothing to the way there.
func passes(name string) bool {
	key := http.CanonicalHeaderKey(name)
	return len(name) >= 7 && !neverTrailers[key] && !slices.Contains(hop, key) &&
		!strings.ContainsFunc(name, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
		})
}

// headerValue escapes what would end the value or divide it.
func headerValue(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ',' || r == '%' }) {
		return url.QueryEscape(s)
	}
	return s
}

// network is where a client's requests are counted: its address, of IPv6 the network, because a client with one
// address there has 2^64 of them.
func (g *Gateway) network(r *http.Request) string {
	addr := g.client(r)
	if ip, err := netip.ParseAddr(addr); err == nil && ip.Unmap().Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String()
		}
	}
	return addr
}

// remote is what the access log says of the client: its address, and its port where no proxy is in between.
func (g *Gateway) remote(r *http.Request) string {
	if len(g.cfg.TrustedProxies) == 0 {
		return r.RemoteAddr
	}
	return g.client(r)
}

// client is the address that the request came from, past trusted proxies.
func (g *Gateway) client(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if len(g.cfg.TrustedProxies) == 0 || !g.trusts(host) {
		return host
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		hop = strings.TrimSpace(hop)
		if withPort, err := netip.ParseAddrPort(hop); err == nil { // as some proxies write it
			hop = withPort.Addr().String()
		}
		if _, err := netip.ParseAddr(strings.Trim(hop, "[]")); err != nil {
			break
		}
		hop = strings.Trim(hop, "[]")
		if host = hop; !g.trusts(hop) {
			break
		}
	}
	return host
}

func (g *Gateway) trusts(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil &&
		slices.ContainsFunc(g.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(ip.Unmap().WithZone("")) })
}

// setForwarded sets the headers that say where the request came from.
func (g *Gateway) setForwarded(out http.Header, in *http.Request, rt *route) {
	host, _, err := net.SplitHostPort(in.RemoteAddr)
	if err != nil {
		host = in.RemoteAddr
	}
	chain, name, proto := host, in.Host, "http"
	var port, prefix string
	if in.TLS != nil {
		proto = "https"
	}
	if g.trusts(host) {
		if before := in.Header.Values("X-Forwarded-For"); len(before) > 0 {
			chain = strings.Join(before, ", ") + ", " + host
		}
		if v := in.Header.Get("X-Forwarded-Host"); v != "" {
			name = v
		}
		switch first, _, _ := strings.Cut(in.Header.Get("X-Forwarded-Proto"),
			","); strings.ToLower(strings.TrimSpace(first)) {
		case "http", "ws":
			proto = "http"
		case "https", "wss":
			proto = "https"
		}
		port, _, _ = strings.Cut(in.Header.Get("X-Forwarded-Port"), ",")
		if port = strings.TrimSpace(port); !validPort(port) {
			port = ""
		}
		prefix, _, _ = strings.Cut(in.Header.Get("X-Forwarded-Prefix"), ",")
		if prefix = strings.TrimRight(strings.TrimSpace(prefix), "/"); checkConfigured(prefix) != nil ||
			strings.HasPrefix(prefix, "//") {
			prefix = ""
		}
	}
	if !rt.KeepPrefix && rt.Prefix != "/" {
		prefix += rt.Prefix
	}
	values := [...]string{chain, name, proto, prefix}
	out["X-Forwarded-For"], out["X-Forwarded-Host"], out["X-Forwarded-Proto"] = values[0:1:1], values[1:2:2], values[2:3:3]
	if prefix != "" {
		out["X-Forwarded-Prefix"] = values[3:4:4]
	}
	if port != "" {
		out["X-Forwarded-Port"] = []string{port}
	}
}

// bearer returns the token of a request that has exactly one.
func bearer(h http.Header) string {
	values := h["Authorization"]
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// allowed reports whether one of roles is wanted.
func allowed(want, roles []string) bool {
	return len(want) == 0 || slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(want, r) })
}
