package vault_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// server behaves as Vault does in what the client uses: logins, token life and renewal, KV v2 with versions and
// check-and-set, and its error answers.
type server struct {
	mu      sync.Mutex
	ttl     time.Duration
	tokens  map[string]time.Time // when they expire
	logins  int
	renews  int
	kv      map[string][]map[string]any
	fail    []int // statuses that the next requests get
	answers int
}

func newServer() *server {
	return &server{ttl: time.Hour, tokens: map[string]time.Time{"root-hush": {}}, kv: map[string][]map[string]any{}}
}

func (s *server) issue() map[string]any {
	s.logins++
	t := fmt.Sprintf("token-hush-%d", s.logins)
	s.tokens[t] = time.Now().Add(s.ttl)
	return map[string]any{"auth": map[string]any{"client_token": t, "lease_duration": int(s.ttl.Seconds()),
		"renewable": true}}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers++
	reply := func(code int, v any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	deny := func(code int) { reply(code, map[string]any{"errors": []string{"hush: " + r.URL.Path}}) }
	if len(s.fail) > 0 {
		code := s.fail[0]
		s.fail = s.fail[1:]
		deny(code)
		return
	}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/v1/")
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch path {
	case "auth/approle/login":
		if body["role_id"] != "r" || body["secret_id"] != "s-hush" {
			deny(400)
			return
		}
		reply(200, s.issue())
		return
	case "auth/kubernetes/login":
		if body["role"] != "orders" || body["jwt"] != "jwt-hush" {
			deny(403)
			return
		}
		reply(200, s.issue())
		return
	}
	token := r.Header.Get("X-Vault-Token")
	expires, ok := s.tokens[token]
	if !ok || !expires.IsZero() && time.Now().After(expires) {
		deny(403)
		return
	}
	switch {
	case path == "auth/token/lookup-self":
		ttl := 0
		if !expires.IsZero() {
			ttl = int(time.Until(expires).Seconds())
		}
		reply(200, map[string]any{"data": map[string]any{"ttl": ttl, "renewable": ttl > 0}})
	case path == "auth/token/renew-self":
		s.renews++
		s.tokens[token] = time.Now().Add(s.ttl)
		reply(200, map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": int(s.ttl.Seconds()),
			"renewable": true}})
	case strings.HasPrefix(path, "denied/"):
		deny(403)
	case strings.Contains(path, "/data/") && r.Method == "GET":
		versions := s.kv[path]
		n := len(versions)
		if v := r.URL.Query().Get("version"); v != "" {
			n, _ = strconv.Atoi(v)
		}
		if n < 1 || n > len(versions) || versions[n-1] == nil {
			deny(404)
			return
		}
		reply(200, map[string]any{"data": map[string]any{"data": versions[n-1], "metadata": map[string]any{"version": n}}})
	case strings.Contains(path, "/data/"):
		if o, ok := body["options"].(map[string]any); ok && int(o["cas"].(float64)) != len(s.kv[path]) {
			deny(400)
			return
		}
		data, _ := body["data"].(map[string]any)
		s.kv[path] = append(s.kv[path], data)
		reply(200, map[string]any{"data": map[string]any{"version": len(s.kv[path])}})
	default:
		deny(404)
	}
}

// RoundTrip serves requests inside a bubble of synctest, where no sockets are.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, r)
	res := rec.Result()
	res.Request = r
	return res, nil
}

func (s *server) read(n *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *n
}
