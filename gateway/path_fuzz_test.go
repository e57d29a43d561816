package gateway

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
)

// FuzzPath: a path that is let through means the same to a service that decodes and cleans it as it did to the gateway.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/users/7", "/users/%2e%2e/x", "/a/.%2E", "/a%2Fb", `/a\b`, "/%00", "/a//b/", "/a/...",
		"/%", "/a/%252e%252e"} {
		f.Add(s)
	}
	doubled := regexp.MustCompile("/+")
	f.Fuzz(func(t *testing.T, s string) {
		if !strings.HasPrefix(s, "/") {
			return
		}
		if checkPath(s, false) != nil {
			return
		}
		plain, err := url.PathUnescape(s)
		if err != nil {
			t.Fatalf("%q is let through and does not decode", s)
		}
		if strings.Count(plain, "/") != strings.Count(s, "/") || strings.ContainsAny(plain, "\\\x00\r\n") {
			t.Fatalf("%q decodes to %q", s, plain)
		}
		once := doubled.ReplaceAllString(plain, "/")
		if clean := path.Clean(plain); clean != once && clean+"/" != once {
			t.Fatalf("%q is %q to a service that cleans it", s, clean)
		}
	})
}

// FuzzPattern: a pattern without wildcards matches itself alone.
func FuzzPattern(f *testing.F) {
	f.Add("/token", "/token/x")
	f.Add("/", "//")
	f.Add("/a/b", "/a")
	f.Fuzz(func(t *testing.T, pattern, other string) {
		p, err := parsePattern(pattern)
		if err != nil || strings.ContainsAny(pattern, "* ") || !strings.HasPrefix(other, "/") {
			return
		}
		if got := p.match("GET", other); got != (pattern == other) {
			t.Fatalf("%q matches %q: %v", pattern, other, got)
		}
	})
}
