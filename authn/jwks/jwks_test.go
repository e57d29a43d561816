package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// endpoint is a RoundTripper, so that the tests run in a bubble of their own time.
type endpoint struct {
	mu    sync.Mutex
	code  int
	body  string
	calls atomic.Int64
	takes atomic.Int64

	handler http.Handler // answers, when there is one
}

func (e *endpoint) set(code int, body string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.code, e.body = code, body
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	e.calls.Add(1)
	if d := time.Duration(e.takes.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if e.handler != nil {
		rec := httptest.NewRecorder()
		e.handler.ServeHTTP(rec, r)
		return rec.Result(), nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.code == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: e.code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(e.body)),
		Request: r}, nil
}

func document(t *testing.T) (doc, kid string) {
	t.Helper()
	store := authn.NewMemoryKeys()
	k := authn.Must(authn.NewKeySet(store, authn.KeyConfig{Logger: quiet}))
	keys, _, _ := store.Load(t.Context())
	return string(k.JWKS()), keys[0].ID
}

func open(t *testing.T, e *endpoint, cfg jwks.Config) *jwks.Set {
	cfg.Client, cfg.Logger = &http.Client{Transport: e}, quiet
	return jwks.Must(jwks.New("https://users.test/jwks.json", cfg))
}

func TestUnknownKeysCauseFewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc, kid := document(t)
		e := &endpoint{}
		e.takes.Store(int64(time.Second))
		e.set(200, doc)
		s := open(t, e, jwks.Config{})
		defer s.Close()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := e.calls.Load(); n != 1 {
			t.Errorf("%d requests for 100 waiters", n)
		}
		start := time.Now()
		for i := range 10_000 { // a minute of invented key ids
			if _, err := s.Keys(t.Context(), fmt.Sprint("evil", i), authn.EdDSA); !errors.Is(err, authn.ErrUnknownKey) {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Millisecond)
		}
		if n, d := e.calls.Load(), time.Since(start); n > 1+int64(d/(10*time.Second)) { // the first one was before start
			t.Errorf("%d requests in %s", n, d)
		}
		time.Sleep(time.Minute)
		before := e.calls.Load()
		for i := range 10_000 { // all at once
			wg.Go(func() {
				if _, err := s.Keys(t.Context(), fmt.Sprint("flood", i), authn.EdDSA); !errors.Is(err, authn.ErrUnknownKey) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := e.calls.Load() - before; n > 1 {
			t.Errorf("%d requests for 10,000 key ids at once", n)
		}
	})
}

// TestVerificationContinuesWhileKeysRotate verifies without a pause by a set that is read over HTTP, while the keys of
// the issuer rotate every hour.
func TestVerificationContinuesWhileKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{RotateEvery: time.Hour,
			PublishAhead: 15 * time.Minute, VerifyFor: time.Hour, Logger: quiet}))
		i := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x", TTL: 30 * time.Minute,
			Logger: quiet}))
		e := &endpoint{handler: keys.Handler()}
		s := open(t, e, jwks.Config{})
		defer s.Close()
		v := authn.Must(authn.NewVerifier(s, authn.VerifierConfig{Issuer: "x", Logger: quiet}))
		var wg sync.WaitGroup
		kids := sync.Map{}
		for n := range 2 {
			wg.Go(func() {
				var live []string
				for range 10 * 60 { // ten hours, a token a minute, each verified as long as it lives
					p, err := i.Issue(t.Context(), authn.Subject{ID: "u1"})
					if err != nil {
						t.Error(err)
						return
					}
					kids.Store(strings.SplitN(p.AccessToken, ".", 2)[0], nil)
					live = append(live, p.AccessToken)
					live = live[max(0, len(live)-30):]
					for _, token := range []string{live[0], live[len(live)/2], live[len(live)-1]} {
						if _, err := v.Verify(t.Context(), token); err != nil {
							t.Errorf("worker %d: %v", n, err)
							return
						}
					}
					time.Sleep(time.Minute)
				}
			})
		}
		wg.Wait()
		signed := 0
		kids.Range(func(any, any) bool { signed++; return true })
		if signed < 10 || e.calls.Load() > 10*60/5+1+int64(signed) {
			t.Errorf("%d keys have signed in ten hours, with %d requests for them", signed, e.calls.Load())
		}
	})
}

func TestStaleKeysServeDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc, kid := document(t)
		next, nextID := document(t)
		e := &endpoint{}
		e.set(200, doc)
		s := open(t, e, jwks.Config{})
		defer s.Close()
		for _, bad := range []struct {
			code int
			body string
		}{{0, ""}, {500, "x"}, {200, `{"keys":[]}`}, {200, "<html>"}, {200, `{"keys":[{"kty":"oct","k":"AAAA"}]}`},
			{200, `{}`}, {404, next}, {200, `{"keys":[` + strings.Repeat(" ", 600<<10) + "]}"}} {
			if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
				t.Fatal(err)
			}
			e.set(bad.code, bad.body)
			time.Sleep(time.Hour)
			if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
				t.Errorf("%d %.20q: %v", bad.code, bad.body, err)
			}
			if _, err := s.Keys(t.Context(), nextID, authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) {
				t.Errorf("%d %.20q: unknown: %v", bad.code, bad.body, err)
			}
		}
		e.set(200, next)
		time.Sleep(11 * time.Second) // while it fails it is tried more often
		if _, err := s.Keys(t.Context(), nextID, authn.EdDSA); err != nil {
			t.Errorf("back again: %v", err)
		}
		if _, err := s.Keys(t.Context(), kid, authn.EdDSA); !errors.Is(err, authn.ErrUnknownKey) {
			t.Errorf("a withdrawn key: %v", err)
		}
	})
}

func TestBeforeTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc, kid := document(t)
		e := &endpoint{}
		s := open(t, e, jwks.Config{MaxStale: time.Hour})
		defer s.Close()
		if _, err := s.Keys(t.Context(), kid, authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) ||
			errors.Is(err, authn.ErrUnknownKey) {
			t.Errorf("down: %v", err)
		}
		e.set(200, doc)
		time.Sleep(11 * time.Second)
		if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
			t.Errorf("up: %v", err)
		}
		e.set(0, "")
		time.Sleep(2 * time.Hour)
		if _, err := s.Keys(t.Context(), kid, authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("too stale: %v", err)
		}
		e.takes.Store(int64(time.Minute))
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Keys(ctx, kid, authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("a waiter gives up: %v", err)
		}
	})
}

func TestURLs(t *testing.T) {
	for u, ok := range map[string]bool{
		"https://users.test/jwks": true, "http://127.0.0.1:1/jwks": true, "http://localhost:1/jwks": true,
		"http://[::1]:1/":        true,
		"http://users.test/jwks": false, "ftp://users.test/": false, "file:///etc/passwd": false, "users": false, "": false,
	} {
		s, err := jwks.New(u, jwks.Config{Logger: quiet, Client: &http.Client{Transport: &endpoint{}}})
		if (err == nil) != ok {
			t.Errorf("%q: %v", u, err)
		}
		if s != nil {
			_ = s.Close()
		}
	}
	s, err := jwks.New("http://users.test/jwks", jwks.Config{Insecure: true, Logger: quiet,
		Client: &http.Client{Transport: &endpoint{}}})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
}

// TestOverHTTP verifies a token with the set that the issuer's handler serves, and follows no redirect out of https.
func TestOverHTTP(t *testing.T) {
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	mux := http.NewServeMux()
	mux.Handle("/jwks.json", keys.Handler())
	mux.Handle("/away", http.RedirectHandler("http://users.test/jwks.json", http.StatusFound))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	s := jwks.Must(jwks.New(srv.URL+"/jwks.json", jwks.Config{Logger: quiet}))
	defer s.Close()
	i := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x"}))
	p, err := i.Issue(t.Context(), authn.Subject{ID: "u1"})
	if err != nil {
		t.Fatal(err)
	}
	v := authn.Must(authn.NewVerifier(s, authn.VerifierConfig{Issuer: "x", Logger: quiet}))
	if u, err := v.Verify(t.Context(), p.AccessToken); err != nil || u.ID != "u1" {
		t.Errorf("%+v, %v", u, err)
	}
	away := jwks.Must(jwks.New(srv.URL+"/away", jwks.Config{Logger: quiet}))
	defer away.Close()
	if _, err := away.Keys(t.Context(), "x", authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("a redirect to http elsewhere: %v", err)
	}
}

// A key that was made during an outage of the endpoint is not known to be unknown: its tokens are not refused for good.
func TestUnknownKeyDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc, kid := document(t)
		e := &endpoint{code: 200, body: doc}
		s := open(t, e, jwks.Config{})
		defer s.Close()
		if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keys(t.Context(), "new", authn.EdDSA); !errors.Is(err, authn.ErrUnknownKey) {
			t.Errorf("before: %v", err)
		}
		e.set(0, "")
		time.Sleep(11 * time.Second)
		for range 3 {
			if _, err := s.Keys(t.Context(), "new", authn.EdDSA); !errors.Is(err, authn.ErrUnavailable) ||
				errors.Is(err, authn.ErrUnknownKey) {
				t.Errorf("during it: %v", err)
			}
			if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
				t.Errorf("the known key: %v", err)
			}
			time.Sleep(time.Minute)
		}
		e.set(200, doc)
		time.Sleep(time.Minute)
		if _, err := s.Keys(t.Context(), "new", authn.EdDSA); !errors.Is(err, authn.ErrUnknownKey) {
			t.Errorf("after it: %v", err)
		}
	})
}

// A service that starts while its issuer does has the keys soon after the issuer is up, whatever MinInterval is, and is
// not ready before. Later outages change neither.
func TestFirstKeysComeSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc, kid := document(t)
		e := &endpoint{}
		s := open(t, e, jwks.Config{MinInterval: time.Minute})
		defer s.Close()
		time.Sleep(2 * time.Second)
		if err := s.Ready(t.Context()); !errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("without keys: got %v, want ErrUnavailable", err)
		}
		if n := e.calls.Load(); n < 3 || n > 20 {
			t.Errorf("%d requests in the first two seconds, want 3 to 20", n)
		}
		e.set(200, doc)
		begin := time.Now()
		for s.Ready(t.Context()) != nil {
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("the keys came %s after the issuer, want at most 3 s", d)
		}
		if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
			t.Error(err)
		}
		e.set(0, "")
		before := e.calls.Load()
		time.Sleep(time.Hour)
		if err := s.Ready(t.Context()); err != nil {
			t.Errorf("in an outage: got %v, want nil", err)
		}
		if n := e.calls.Load() - before; n > 61 {
			t.Errorf("%d requests in an hour of an outage, want one a minute", n)
		}
	})
}
