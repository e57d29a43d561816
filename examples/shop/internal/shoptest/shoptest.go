// Package shoptest runs services of the shop in tests, and calls them over HTTP as users and as services.
package shoptest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging/memory"
)

// Shop is what services under test have in common: the broker, and the keys of their tokens.
type Shop struct {
	Broker *memory.Broker
	keys   *authn.KeySet
	issuer *authn.Issuer
}

var secret = bytes.Repeat([]byte("s"), 32)

// New makes a shop without services.
func New(t testing.TB) *Shop {
	t.Helper()
	keys, err := authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: platform.Issuer,
		Audience: []string{platform.Audience}})
	if err != nil {
		t.Fatal(err)
	}
	s := &Shop{Broker: memory.Must(memory.New(memory.Config{Source: "test"})), keys: keys, issuer: issuer}
	t.Cleanup(func() { _ = s.Broker.Close() })
	return s
}

// SQLite is the DSN of a new file.
func SQLite(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "shop.db") }

// Config is that of a service over a database.
func (s *Shop) Config(name, dsn string) platform.Config {
	return platform.Config{Name: name, Version: "test", Addr: "127.0.0.1:0", DB: dsn, Broker: s.Broker,
		LogWriter: io.Discard,
		Tokens:    platform.Tokens{Keys: s.keys, Secret: secret}}
}

// Run serves until the test ends.
func Run(t testing.TB, s *platform.Service, err error) *platform.Service {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s: Run: %v", s.Name, err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// User makes a token of a user.
func (s *Shop) User(t testing.TB, id string, roles ...string) string {
	t.Helper()
	pair, err := s.issuer.Issue(t.Context(), authn.Subject{ID: id, Roles: roles})
	if err != nil {
		t.Fatal(err)
	}
	return pair.AccessToken
}

// Service makes a token of a service.
func Service(t testing.TB, s *platform.Service) string {
	t.Helper()
	token, err := s.Guard.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Call is a request. Token and Key may be empty.
type Call struct{ Method, URL, Token, Key, Body string }

// Answer is what came back.
type Answer struct {
	Code int
	Raw  string
	Body map[string]any
}

// hints are words that tell a client which database, or which code, is behind an error.
var hints = []string{"SQL", "sqlite", "pgx", "constraint", "sillar/", "repository:", "sqlrepo:", "barrier:",
	"goroutine"}

// Do makes the request. Errors must be problems that carry the correlation id and reveal no database and no code.
func (c Call) Do(t testing.TB) Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.Method, c.URL, strings.NewReader(c.Body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Correlation-ID", "test-1")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if c.Key != "" {
		req.Header.Set("Idempotency-Key", c.Key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := Answer{Code: res.StatusCode, Raw: string(raw), Body: map[string]any{}}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.Body); err != nil {
			t.Fatalf("%s %s: %d %s: %v", c.Method, c.URL, a.Code, raw, err)
		}
	}
	if a.Code < 400 {
		return a
	}
	if res.Header.Get("Content-Type") != "application/problem+json" || a.Body["correlation_id"] != "test-1" {
		t.Errorf("%s %s: %d as %s: %s", c.Method, c.URL, a.Code, res.Header.Get("Content-Type"), raw)
	}
	for _, h := range hints {
		if strings.Contains(a.Raw, h) {
			t.Errorf("%s %s: %d reveals %q: %s", c.Method, c.URL, a.Code, h, raw)
		}
	}
	return a
}

// Want checks the status and, where they are given, the slug of the problem and the field that it names.
func (a Answer) Want(t testing.TB, what string, code int, slugAndField ...string) {
	t.Helper()
	ok := a.Code == code
	if len(slugAndField) > 0 && slugAndField[0] != "" {
		ok = ok && a.Body["type"] == "https://sillar.dev/problems/"+slugAndField[0]
	}
	if len(slugAndField) > 1 {
		ok = ok && strings.Contains(a.Raw, `"field":"`+slugAndField[1]+`"`)
	}
	if !ok {
		t.Errorf("%s: %d %s, want %d %v", what, a.Code, a.Raw, code, slugAndField)
	}
}
