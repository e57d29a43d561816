package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

var errPath = errors.New("gateway: the path has dot segments, encoded slashes, backslashes or control characters")

// checkPath refuses escaped paths that services and gateways are known to read differently.
func checkPath(escaped string, slashes bool) error {
	if escaped == "" {
		return nil
	}
	if !strings.ContainsFunc(escaped, func(r rune) bool { return r == '%' || r == '\\' || r < ' ' || r == 0x7f }) && !strings.Contains(escaped, "/.") {
		return nil
	}
	for segment := range strings.SplitSeq(escaped, "/") {
		s, err := url.PathUnescape(segment)
		if err != nil || s == "." || s == ".." || strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || r < ' ' || r == 0x7f }) {
			return errPath
		}
		if i := strings.IndexByte(s, '/'); i >= 0 {
			if !slashes {
				return errPath
			}
			for part := range strings.SplitSeq(s, "/") { // a service that decodes would see them
				if part == "." || part == ".." {
					return errPath
				}
			}
		}
	}
	return nil
}

// under says whether path is prefix or below it, by whole segments, and returns the rest.
func under(path, prefix string) (rest string, ok bool) {
	if prefix == "/" {
		return path, true
	}
	rest, ok = strings.CutPrefix(path, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// find returns the route with the longest prefix that matches.
func (t *table) find(path string) *route {
	for p := path; p != ""; {
		if r, ok := t.byPrefix[p]; ok {
			return r
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return t.byPrefix["/"]
}

// upstreamPath is the escaped path that the service sees.
func (r *route) upstreamPath(escaped string) string {
	if r.KeepPrefix {
		return escaped
	}
	rest, _ := under(escaped, r.Prefix)
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
	if !strings.HasPrefix(path, "/") || checkPath(path, false) != nil || method != strings.ToUpper(method) {
		return pattern{}, fmt.Errorf("public %q: want \"METHOD /path\" or \"/path\"", s)
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
