package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

var errPath = errors.New(
	"gateway: the path has dot segments, encoded slashes, backslashes, control characters or overlong UTF-8",
)

// receivedPath is the escaped path as the client sent it, with the characters escaped that a path must not contain.
// What is checked, matched and sent is this one string: url.URL.EscapedPath decodes escaped slashes where the path also
// contains such a character.
func receivedPath(u *url.URL) string {
	path := u.RawPath
	if path == "" {
		path = u.EscapedPath()          // as it was received
		if path == "" && u.Host != "" { // http://host, as it stands in requests to proxies: RFC 9112, 3.2.2
			return "/"
		}
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c == '%' || allowedInPath(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// allowedInPath reports the characters that url.URL.EscapedPath keeps in a RawPath.
func allowedInPath(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("-._~!$&'()*+,;=:@/[]", c) >= 0
}

// checkPath refuses escaped paths that services and gateways are known to read differently. Some take what follows a ;
// in a segment for a parameter, and so see two dots before it.
func checkPath(escaped string, slashes bool) error {
	if escaped == "" {
		return nil
	}
	if !strings.ContainsFunc(escaped, func(r rune) bool { return r == '%' || r == '\\' || r < ' ' || r == 0x7f }) &&
		!strings.Contains(escaped, "/.") {
		return nil
	}
	for segment := range strings.SplitSeq(escaped, "/") {
		s, err := url.PathUnescape(segment)
		if name, _, _ := strings.Cut(s, ";"); err != nil || name == "." || name == ".." ||
			strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || r < ' ' || r == 0x7f }) || overlong(s) {
			return errPath
		}
		if i := strings.IndexByte(s, '/'); i >= 0 {
			if !slashes {
				return errPath
			}
			for part := range strings.SplitSeq(s, "/") { // a service that decodes would see them
				if part, _, _ = strings.Cut(part, ";"); part == "." || part == ".." {
					return errPath
				}
			}
		}
	}
	return nil
}

// overlong reports a character in more bytes of UTF-8 than it takes. Careless decoders make . and / of some.
func overlong(s string) bool {
	for i := range len(s) - 1 {
		second := s[i+1]
		switch s[i] {
		case 0xc0, 0xc1:
			if 0x80 <= second && second < 0xc0 {
				return true
			}
		case 0xe0:
			if 0x80 <= second && second < 0xa0 {
				return true
			}
		case 0xf0:
			if 0x80 <= second && second < 0x90 {
				return true
			}
		}
	}
	return false
}

// checkConfigured refuses paths that no request can have as receivedPath writes them: those of a configuration are
// compared with it, and sent, as they are.
func checkConfigured(path string) error {
	if !strings.HasPrefix(path, "/") || checkPath(path, false) != nil {
		return errors.New("want a clean path that begins with /")
	}
	for i := range len(path) {
		if c := path[i]; c != '%' && !allowedInPath(c) {
			return fmt.Errorf("want %q escaped, as it is in a request's path", c)
		}
	}
	return nil
}

// under reports whether path is prefix or below it, by whole segments, and returns the rest.
func under(path, prefix string) (rest string, ok bool) {
	if prefix == "/" {
		return path, true
	}
	rest, ok = strings.CutPrefix(path, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// notPlain reports whether plainPath changes a path.
func notPlain(path string) bool {
	return strings.ContainsAny(path, "%;") || strings.Contains(path, "//")
}

// plainPath is an escaped path as most services read it: decoded, without parameters and without empty segments.
func plainPath(escaped string) string {
	decoded, err := url.PathUnescape(escaped)
	if err != nil { // net/url made it
		return escaped
	}
	var plain strings.Builder
	for segment := range strings.SplitSeq(decoded, "/") {
		if segment, _, _ = strings.Cut(segment, ";"); segment != "" {
			plain.WriteByte('/')
			plain.WriteString(segment)
		}
	}
	return cmp.Or(plain.String(), "/")
}

// upstreamPath is the escaped path that the service sees.
func (r *route) upstreamPath(escaped string) string {
	if r.KeepPrefix {
		return escaped
	}
	rest := escaped
	if r.Prefix != "/" {
		rest = escaped[len(r.Prefix):]
	}
	if r.Rewrite != "" && r.Rewrite != "/" {
		return strings.TrimSuffix(r.Rewrite, "/") + rest
	}
	if rest == "" {
		return "/"
	}
	return rest
}

// pattern is a parsed entry of Route.Public.
type pattern struct {
	method   string
	segments []string
	rest     bool // it ends in **
}

func parsePattern(s string) (pattern, error) {
	method, path, ok := strings.Cut(s, " ")
	if !ok {
		method, path = "", s
	}
	path = strings.TrimSpace(path)
	if method != strings.ToUpper(method) {
		return pattern{}, fmt.Errorf("public %q: want \"METHOD /path\" or \"/path\"", s)
	}
	if err := checkConfigured(path); err != nil {
		return pattern{}, fmt.Errorf("public %q: want \"METHOD /path\" or \"/path\": %w", s, err)
	}
	p := pattern{method: method, segments: strings.Split(path[1:], "/")}
	if n := len(p.segments) - 1; p.segments[n] == "**" {
		p.segments, p.rest = p.segments[:n], true
	}
	for _, segment := range p.segments {
		if strings.Contains(segment, "**") {
			return pattern{}, fmt.Errorf("public %q: ** is a last segment", s)
		}
	}
	return p, nil
}

func (p pattern) match(method, path string) bool {
	if p.method != "" && p.method != method && !(p.method == "GET" && method == "HEAD") {
		return false
	}
	path = strings.TrimPrefix(path, "/")
	for i, want := range p.segments {
		if path == "" && !(i == 0 && want == "") {
			return false
		}
		segment, rest, more := strings.Cut(path, "/")
		if want != "*" && want != segment || want == "*" && segment == "" {
			return false
		}
		if i == len(p.segments)-1 && more && !p.rest {
			return false
		}
		path = rest
	}
	return p.rest || len(p.segments) > 0
}
