package vault_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/authn/secrets/vault"
)

// A secret may be a number with more digits than a float64 holds.
func TestNumbersKeepTheirDigits(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/auth/token/lookup-self" {
			_, _ = w.Write([]byte(`{"data":{"ttl":0}}`))
			return
		}
		_, _ = w.Write([]byte(`{"data":{"data":{"pin":9007199254740993,"nested":{"rate":0.10}},"metadata":{"version":1}}}`))
	}))
	defer srv.Close()
	c := vault.Must(vault.New(vault.Config{Address: srv.URL, Auth: vault.Token("t"),
		Logger: slog.New(slog.DiscardHandler)}))
	defer c.Close()
	d, err := c.Read(t.Context(), "secret", "shop")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"pin": "9007199254740993", "nested": `{"rate":0.10}`} {
		if got, ok := d.Get(key); !ok || got.Reveal() != want {
			t.Errorf("%s: got %q, want %q", key, got.Reveal(), want)
		}
	}
}

// ldap is an Auth of a program's own.
type ldap struct{}

func (ldap) Login(ctx context.Context, post func(context.Context, string,
	any) (vault.Lease, error)) (vault.Lease, error) {
	return post(ctx, "auth/ldap/login/ana", map[string]string{"password": "p"})
}

func TestLoginsAtOtherMounts(t *testing.T) {
	jwt := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(jwt, []byte("jwt-hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		auth vault.Auth
		path string
		body map[string]string
	}{
		"AppRole": {vault.AppRole("r", "s"), "/v1/auth/approle/login", map[string]string{"role_id": "r",
			"secret_id": "s"}},
		"AppRole at": {vault.AppRole("r", "s").At("teams/orders/"), "/v1/auth/teams/orders/login",
			map[string]string{"role_id": "r", "secret_id": "s"}},
		"Kubernetes at": {vault.Kubernetes("orders", jwt).At("k8s-eu"), "/v1/auth/k8s-eu/login",
			map[string]string{"role": "orders", "jwt": "jwt-hush"}},
		"a custom one": {ldap{}, "/v1/auth/ldap/login/ana", map[string]string{"password": "p"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/v1/auth/") {
					var body map[string]string
					if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
						t.Error(err)
					}
					got, _ := json.Marshal(body)
					want, _ := json.Marshal(c.body)
					if r.URL.Path != c.path || string(got) != string(want) {
						t.Errorf("login: got %s %s, want %s %s", r.URL.Path, got, c.path, want)
					}
					_, _ = w.Write([]byte(`{"auth":{"client_token":"mine","lease_duration":3600,"renewable":true}}`))
					return
				}
				if r.URL.EscapedPath() != "/v1/team/kv/data/shop/db" || r.Header.Get("X-Vault-Token") != "mine" {
					t.Errorf("read: %s with the token %q", r.URL.EscapedPath(), r.Header.Get("X-Vault-Token"))
				}
				_, _ = w.Write([]byte(`{"data":{"data":{"password":"x"},"metadata":{"version":1}}}`))
			}))
			defer srv.Close()
			client := vault.Must(vault.New(vault.Config{Address: srv.URL, Auth: c.auth, Logger: slog.New(slog.DiscardHandler)}))
			defer client.Close()
			if got, err := client.Get(t.Context(), "vault://team%2Fkv/shop/db#password"); err != nil || got.Reveal() != "x" {
				t.Errorf("got %q, %v", got.Reveal(), err)
			}
			if _, err := client.Read(t.Context(), "team/../sys", "x"); err == nil {
				t.Error("a relative mount was accepted")
			}
		})
	}
}

// The variables of Vault's own client are followed, or refused.
func TestEnvironmentIsFollowedOrRefused(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ns := r.Header.Get("X-Vault-Namespace"); ns != "teams/orders" {
			t.Errorf("namespace: got %q", ns)
		}
		_, _ = w.Write([]byte(`{"data":{"ttl":0}}`))
	}))
	defer srv.Close()
	checkEnvironment(t, srv)
}

// checkEnvironment opens clients by the environment and changes one variable at a time.
func checkEnvironment(t *testing.T, srv *httptest.Server) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_ADDR", srv.URL)
	t.Setenv("VAULT_TOKEN", "t")
	t.Setenv("VAULT_NAMESPACE", "teams/orders")
	check := func() error {
		c, err := vault.New(vault.Config{Attempts: -1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Check(t.Context())
	}
	srv.Config.ErrorLog = nil
	if err := check(); err == nil {
		t.Error("a server of an unknown CA was accepted")
	}
	t.Setenv("VAULT_CACERT", ca)
	if err := check(); err != nil {
		t.Errorf("with VAULT_CACERT: %v", err)
	}
	for name, value := range map[string]string{"VAULT_SKIP_VERIFY": "true", "VAULT_CAPATH": "/etc/ssl",
		"VAULT_CACERT": ca + ".missing"} {
		old := os.Getenv(name)
		t.Setenv(name, value)
		if err := check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: got %v, want an error that names it", name, value, err)
		}
		t.Setenv(name, old)
	}
}
