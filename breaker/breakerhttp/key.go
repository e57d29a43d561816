package breakerhttp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
)

// KeyFunc returns what divides the requests to a host among several breakers: a part of the API, a tenant. "" is the
// breaker of the host itself. It must not change the request. Each value makes a breaker, so take values of which there
// are few: the template of a path, never the path. Beyond Config.MaxHosts, requests pass unguarded; see
// breaker.NewRegistry.
type KeyFunc func(req *http.Request) string

// PathTemplates returns a KeyFunc by the pattern that a request matches, written and chosen as those of http.ServeMux:
// "GET /orders/{id}", "/search/". Requests that match none share the breaker of the host.
func PathTemplates(patterns ...string) (key KeyFunc, err error) {
	mux := http.NewServeMux()
	for _, p := range patterns {
		if err := register(mux, p); err != nil {
			return nil, err
		}
	}
	return func(req *http.Request) string {
		asked := &http.Request{Method: req.Method, URL: req.URL, Host: req.Host}
		if asked.Method == "" {
			asked.Method = http.MethodGet
		}
		if asked.Host == "" {
			asked.Host = req.URL.Host
		}
		_, pattern := mux.Handler(asked)
		return pattern
	}, nil
}

// register adds a pattern. The mux panics on one that is not valid, or is there already.
func register(mux *http.ServeMux, pattern string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("breakerhttp: pattern %q: %v", pattern, p)
		}
	}()
	mux.Handle(pattern, http.NotFoundHandler())
	return nil
}

// HeaderKey returns a KeyFunc by the value of a header, such as the one that names the tenant.
func HeaderKey(name string) KeyFunc {
	return func(req *http.Request) string { return req.Header.Get(name) }
}

// JoinKeys returns a KeyFunc that divides by all of keys.
func JoinKeys(keys ...KeyFunc) KeyFunc {
	return func(req *http.Request) string {
		parts := make([]string, len(keys))
		empty := true
		for i, k := range keys {
			parts[i] = k(req)
			empty = empty && parts[i] == ""
		}
		if empty {
			return ""
		}
		return strings.Join(parts, " ")
	}
}

// maxKey bounds the memory that a key takes, which may come from a request.
const maxKey = 128

// key returns the name of the breaker of a request: the host, and what Config.Key makes of the request.
func (t *Transport) key(req *http.Request) string {
	host := hostKey(req)
	if t.cfg.Key == nil {
		return host
	}
	k := t.cfg.Key(req)
	if k == "" {
		return host
	}
	if len(k) > maxKey {
		sum := sha256.Sum256([]byte(k))
		k = strings.ToValidUTF8(k[:maxKey-17], "") + "~" + hex.EncodeToString(sum[:8])
	}
	return host + " " + k
}
