package tokensource_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/tokensource"
)

// endpoint is a token endpoint inside a bubble of synctest, where no sockets are.
type endpoint struct {
	calls   atomic.Int32
	status  atomic.Int32
	life    int
	latency time.Duration
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	n := e.calls.Add(1)
	select {
	case <-time.After(e.latency):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	rec := httptest.NewRecorder()
	if s := int(e.status.Load()); s != 0 {
		rec.WriteHeader(s)
		_, _ = rec.WriteString(`{"error":"invalid_client"}`)
	} else {
		_, _ = fmt.Fprintf(rec, `{"access_token":"t%d","token_type":"bearer","expires_in":%d}`, n, e.life)
	}
	res := rec.Result()
	res.Request = r
	return res, nil
}

func open(e *endpoint) *tokensource.Source {
	return tokensource.Must(tokensource.New(tokensource.Config{
		TokenURL: "https://id.test/token", ClientID: "orders", ClientSecret: "hush", Client: &http.Client{Transport: e},
	}))
}

func TestOneRequestForConcurrentCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 600, latency: time.Second}
		s := open(e)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if token, err := s.Token(t.Context()); token != "t1" || err != nil {
					t.Errorf("got %q, %v", token, err)
				}
			})
		}
		wg.Wait()
		if n := e.calls.Load(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// A token is renewed before it ends; callers use the old one meanwhile, and while the endpoint is down.
func TestRenewsEarlyInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 100, latency: time.Second}
		s := open(e)
		get := func(want string) {
			t.Helper()
			start := time.Now()
			token, err := s.Token(t.Context())
			if token != want || err != nil || want != "t1" && time.Since(start) > 0 {
				t.Errorf("got %q after %s, %v; want %q at once", token, time.Since(start), err, want)
			}
		}
		get("t1")
		time.Sleep(85 * time.Second)
		get("t1") // and asks for the next
		time.Sleep(2 * time.Second)
		get("t2")
		e.status.Store(503)
		time.Sleep(85 * time.Second)
		get("t2")
		time.Sleep(5 * time.Second)
		get("t2")
		time.Sleep(2 * time.Second)
		e.status.Store(0)
		get("t2") // and asks again
		time.Sleep(2 * time.Second)
		token, err := s.Token(t.Context())
		if err != nil || token == "t2" {
			t.Errorf("after the outage: %q, %v", token, err)
		}
	})
}

func TestFailuresAreCachedAndTyped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 100}
		s := open(e)
		e.status.Store(401)
		var refused *tokensource.RefusedError
		if _, err := s.Token(t.Context()); !errors.As(err, &refused) || refused.Code != "invalid_client" ||
			strings.Contains(err.Error(), "hush") {
			t.Errorf("refused: %v", err)
		}
		for range 10 { // the endpoint is spared
			if _, err := s.Token(t.Context()); !errors.As(err, &refused) {
				t.Errorf("again: %v", err)
			}
		}
		if n := e.calls.Load(); n != 1 {
			t.Errorf("%d requests within RetryAfter, want 1", n)
		}
		time.Sleep(2 * time.Second)
		e.status.Store(502)
		if _, err := s.Token(t.Context()); !errors.Is(err, tokensource.ErrUnavailable) {
			t.Errorf("down: %v", err)
		}
		time.Sleep(2 * time.Second)
		e.status.Store(0)
		e.latency = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := s.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("a caller with a deadline: %v after %s", err, time.Since(start))
		}
		start = time.Now()
		if _, err := s.Token(t.Context()); !errors.Is(err, tokensource.ErrUnavailable) || time.Since(start) > 10*time.Second {
			t.Errorf("a frozen endpoint: %v after %s", err, time.Since(start))
		}
	})
}

// The token endpoint of package authn, and a service behind Require.
func TestWithTokenEndpoint(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	issuer := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x",
		Audience: []string{"stock"}, Logger: quiet}))
	v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "x", Audience: []string{"stock"}, Logger: quiet}))
	mux := http.NewServeMux()
	mux.Handle("POST /token", authn.TokenEndpoint(issuer, func(context.Context, string, string) (authn.Subject, error) {
		return authn.Subject{}, authn.ErrPassword
	},
		authn.TokenEndpointConfig{
			Client: func(_ context.Context, id, secret string) error {
				if id != "orders:1" || secret != "a%+b" {
					return authn.ErrClient
				}
				return nil
			},
			ClientCredentials: func(_ context.Context, id string, scopes []string) (authn.Subject, error) {
				return authn.Subject{ID: "service:" + id, Scopes: scopes}, nil
			},
			Logger: quiet,
		}))
	mux.Handle("GET /stock", authn.Require(v, authn.AllScopes("stock:read"))(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		u, _ := authn.FromContext(r.Context())
		_, _ = w.Write([]byte(u.ID))
	})))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	source := tokensource.Must(tokensource.New(tokensource.Config{TokenURL: srv.URL + "/token", ClientID: "orders:1",
		ClientSecret: "a%+b", Scopes: []string{"stock:read"}}))
	client := &http.Client{Transport: source.Transport(srv.Client().Transport)}
	for range 2 {
		res, err := client.Get(srv.URL + "/stock")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("got %s", res.Status)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]tokensource.Config{
		"no URL":                {ClientID: "a", ClientSecret: "b"},
		"plain http":            {TokenURL: "http://id.test/token", ClientID: "a", ClientSecret: "b"},
		"a name like loopback":  {TokenURL: "http://127.0.0.1.id.test/token", ClientID: "a", ClientSecret: "b"},
		"a name like localhost": {TokenURL: "http://localhost.id.test/token", ClientID: "a", ClientSecret: "b"},
		"no secret":             {TokenURL: "https://id.test/token", ClientID: "a"},
	} {
		if _, err := tokensource.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func Example() {
	source := tokensource.Must(tokensource.New(tokensource.Config{
		TokenURL: "https://id.example.com/token", ClientID: "orders", ClientSecret: "from a secret store",
		Scopes: []string{"stock:read"},
	}))
	client := &http.Client{Transport: source.Transport(nil)} // each request carries a token
	client.CloseIdleConnections()
}
