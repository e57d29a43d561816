package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn/secrets"
	"github.com/sillar-go/sillar/authn/secrets/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, s *server, cfg vault.Config) *vault.Client {
	t.Helper()
	cfg.Address, cfg.Transport = "https://vault.test", s
	if cfg.Auth == nil {
		cfg.Auth = vault.AppRole("r", "s-hush")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := vault.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKVReadsAndWritesVersions(t *testing.T) {
	s := newServer()
	c := open(t, s, vault.Config{Auth: vault.Token("root-hush")})
	defer c.Close()
	ctx := t.Context()
	if _, err := c.Read(ctx, "secret", "orders/db"); !errors.Is(err, vault.ErrNotFound) ||
		!errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	if v, err := c.Write(ctx, "secret", "orders/db", map[string]any{"password": "p-hush", "port": 5432}, 0); v != 1 ||
		err != nil {
		t.Fatalf("%d, %v", v, err)
	}
	if _, err := c.Write(ctx, "secret", "orders/db", map[string]any{"password": "lost"}, 0); !errors.Is(err,
		vault.ErrConflict) {
		t.Errorf("a write over another: %v", err)
	}
	d, err := c.Read(ctx, "secret", "orders/db")
	if err != nil || d.Version != 1 || strings.Join(d.Keys(), ",") != "password,port" {
		t.Fatalf("%+v, %v", d, err)
	}
	if p, ok := d.Get("password"); !ok || p.Reveal() != "p-hush" {
		t.Errorf("password: %v", ok)
	}
	if p, ok := d.Get("port"); !ok || p.Reveal() != "5432" {
		t.Errorf("port: %q %v", p.Reveal(), ok)
	}
	if text := fmt.Sprintf("%v %+v %#v", d, d, *d); strings.Contains(text, "hush") {
		t.Errorf("printed: %s", text)
	}
	if v, err := c.Write(ctx, "secret", "orders/db", map[string]any{"password": "q"}, vault.AnyVersion); v != 2 ||
		err != nil {
		t.Fatalf("%d, %v", v, err)
	}
	if d, err = c.Read(ctx, "secret", "orders/db"); err != nil || d.Version != 2 {
		t.Errorf("after a write, not from the cache: %+v, %v", d, err)
	}
	if d, err = c.ReadVersion(ctx, "secret", "orders/db", 1); err != nil || d.Version != 1 {
		t.Errorf("version 1: %+v, %v", d, err)
	}
	if v, err := c.Get(ctx, "vault://secret/orders/db#password"); err != nil || v.Reveal() != "q" {
		t.Errorf("%q, %v", v.Reveal(), err)
	}
	for _, ref := range []string{"vault://secret/orders/db", "vault://secret#k", "vault://secret/../sys/x#k",
		"vault:///x#k", "vault://a/b//c#k", "env:X", "vault://a/./b#k"} {
		if _, err := c.Get(ctx, ref); !errors.Is(err, secrets.ErrReference) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := c.Get(ctx, "vault://secret/orders/db#none"); !errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("no such key: %v", err)
	}
	stranger := open(t, s, vault.Config{Auth: vault.AppRole("r", "wrong-hush")})
	defer stranger.Close()
	if _, err := stranger.Write(ctx, "secret", "orders/db", map[string]any{"password": "x"}, 2); err == nil ||
		errors.Is(err, vault.ErrConflict) {
		t.Errorf("a login that is refused by a write: %v", err)
	}
	if _, err := c.Read(ctx, "denied", "x"); !errors.Is(err, vault.ErrDenied) || strings.Contains(err.Error(), "hush") {
		t.Errorf("denied: %v", err)
	}
}

func TestLoginsAndRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kv["secret/data/a"] = []map[string]any{{"k": "v"}}
		c := open(t, s, vault.Config{CacheFor: -1})
		defer c.Close()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := c.Read(t.Context(), "secret", "a"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if s.read(&s.logins) != 1 {
			t.Errorf("%d logins for 20 at once", s.read(&s.logins))
		}
		time.Sleep(24 * time.Hour)
		if _, err := c.Read(t.Context(), "secret", "a"); err != nil || s.read(&s.logins) != 1 || s.read(&s.renews) < 30 {
			t.Errorf("after a day: %d logins, %d renewals, %v", s.read(&s.logins), s.read(&s.renews), err)
		}
		s.mu.Lock()
		s.tokens = map[string]time.Time{} // revoked
		s.mu.Unlock()
		if _, err := c.Read(t.Context(), "secret", "a"); err != nil || s.read(&s.logins) != 2 {
			t.Errorf("after a revocation: %d logins, %v", s.read(&s.logins), err)
		}
	})
	jwt := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(jwt, []byte("jwt-hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		auth vault.Auth
		want error
	}{
		"kubernetes": {vault.Kubernetes("orders", jwt), nil}, "kubernetes, other role": {vault.Kubernetes("x", jwt),
			vault.ErrDenied},
		"token": {vault.Token("root-hush"), nil}, "bad token": {vault.Token("x-hush"), vault.ErrDenied},
	} {
		cl := open(t, newServer(), vault.Config{Auth: c.auth})
		if err := cl.Check(t.Context()); !errors.Is(err, c.want) || c.want == nil && err != nil || err != nil &&
			strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
		_ = cl.Close()
	}
}

func TestReadRetriesWhileVaultIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kv["secret/data/a"] = []map[string]any{{"k": "v"}}
		c := open(t, s, vault.Config{Auth: vault.Token("root-hush"), CacheFor: time.Minute})
		defer c.Close()
		s.fail = []int{503, 429, 500}
		if _, err := c.Read(t.Context(), "secret", "a"); err != nil {
			t.Errorf("three failures: %v", err)
		}
		before := s.answers
		if _, err := c.Read(t.Context(), "secret", "a"); err != nil || s.answers != before {
			t.Errorf("not from the cache: %v", err)
		}
		time.Sleep(2 * time.Minute)
		s.fail = []int{500, 500, 500, 500}
		_, err := c.Read(t.Context(), "secret", "a")
		e, ok := errors.AsType[*vault.Error](err)
		if !errors.Is(err, vault.ErrUnavailable) || !ok || e.Status != 500 || strings.Contains(err.Error(), "hush") {
			t.Errorf("down: %v", err)
		}
		s.fail = []int{500, 500, 500, 500, 500}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := c.Read(ctx, "secret", "a"); err == nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("the context's end: %v after %s", err, time.Since(start))
		}
	})
}

func TestWatchReportsNewVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.kv["secret/data/a"] = []map[string]any{{"k": "1"}}
		var log bytes.Buffer
		c := open(t, s, vault.Config{Auth: vault.Token("root-hush"), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var seen []int
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Watch(ctx, "secret", "a", time.Minute,
				func(d *vault.Data) { seen = append(seen, d.Version) }); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(5*time.Minute + time.Second)
		if _, err := c.Write(ctx, "secret", "a", map[string]any{"k": "2"}, 1); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.fail = []int{404}
		s.mu.Unlock()
		time.Sleep(5 * time.Minute)
		cancel()
		wg.Wait()
		if fmt.Sprint(seen) != "[1 2]" || !strings.Contains(log.String(), "watched") {
			t.Errorf("seen %v, log %s", seen, &log)
		}
	})
}

// TestOverHTTP does it once with sockets, and with the environment's variables.
func TestOverHTTP(t *testing.T) {
	s := newServer()
	s.kv["secret/data/a%20b"] = []map[string]any{{"k": "v"}}
	srv := httptest.NewServer(s)
	defer srv.Close()
	t.Setenv("VAULT_ADDR", srv.URL)
	t.Setenv("VAULT_TOKEN", "root-hush")
	c := vault.Must(vault.New(vault.Config{}))
	defer c.Close()
	r := secrets.Must(secrets.NewResolver(secrets.Config{Sources: map[string]secrets.Source{"vault": c}}))
	if v, err := r.Get(t.Context(), "vault://secret/a b#k"); err != nil || v.Reveal() != "v" {
		t.Errorf("%q, %v", v.Reveal(), err)
	}
	t.Setenv("VAULT_TOKEN", "")
	if _, err := vault.New(vault.Config{}); err == nil {
		t.Error("no way to log in, accepted")
	}
	t.Setenv("VAULT_ADDR", "vault")
	if _, err := vault.New(vault.Config{Auth: vault.Token("x")}); err == nil {
		t.Error("no URL, accepted")
	}
}

// hanging answers the first login, and nothing after it.
type hanging struct {
	*server
	silent atomic.Bool
}

func (h *hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	if h.silent.Load() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return h.server.RoundTrip(r)
}

// Close does not wait for a login.
func TestCloseDuringALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{server: newServer()}
		h.ttl = 10 * time.Second
		c := vault.Must(vault.New(vault.Config{Address: "http://vault.test", Auth: vault.AppRole("r", "s-hush"), Transport: h,
			Logger: slog.New(slog.DiscardHandler)}))
		if err := c.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.silent.Store(true)
		time.Sleep(11 * time.Second) // the token is over, and its renewal tries in vain
		ended := make(chan error, 1)
		go func() { ended <- c.Check(context.Background()) }()
		time.Sleep(33 * time.Second) // it tries again, while the login is under way
		began := time.Now()
		if err := c.Close(); err != nil || time.Since(began) != 0 {
			t.Errorf("%v, after %s", err, time.Since(began))
		}
		if err := <-ended; !errors.Is(err, vault.ErrUnavailable) {
			t.Error(err)
		}
	})
}
