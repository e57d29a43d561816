//go:build live

// With a real Vault or OpenBao, which no package of Debian has:
//
//	vault server -dev -dev-root-token-id=root # or: bao server, with the same flags
//	VAULT_ADDR=http://127.0.0.1:8200 VAULT_TOKEN=root go test -tags live -run TestClientWorksWithRealVault ./authn/secrets/vault

package vault_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn/secrets/vault"
	"github.com/sillar-go/sillar/internal/id"
)

// live is a real Vault or OpenBao, whose token may do everything. The server of the other tests answers as their
// documentation says.
func live(t *testing.T) (call func(method, path string, body any) map[string]any) {
	addr, token := os.Getenv("VAULT_ADDR"), os.Getenv("VAULT_TOKEN")
	if addr == "" || token == "" {
		t.Fatal("no Vault: start one as the head of this file says, and name it in VAULT_ADDR and VAULT_TOKEN")
	}
	return func(method, path string, body any) map[string]any {
		t.Helper()
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(method, strings.TrimSuffix(addr, "/")+"/v1/"+path, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Vault-Token", token)
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode >= 300 {
			t.Fatalf("%s %s: %s %s %v", method, path, res.Status, answer, err)
		}
		var out struct {
			Data map[string]any `json:"data"`
		}
		if len(answer) > 0 && json.Unmarshal(answer, &out) != nil {
			t.Fatalf("%s %s: %s", method, path, answer)
		}
		return out.Data
	}
}

// TestClientWorksWithRealVault does with a real server what the others do with one of their own: a KV v2 mount, an AppRole whose tokens
// live for two seconds, versions, conflicts, denials, renewal.
func TestClientWorksWithRealVault(t *testing.T) {
	call := live(t)
	name := "sillar-" + id.New()
	call("POST", "sys/mounts/"+name, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	t.Cleanup(func() { call("DELETE", "sys/mounts/"+name, nil) })
	call("POST", "sys/policies/acl/"+name, map[string]any{"policy": `path "` + name +
		`/data/app/*" { capabilities = ["create", "read", "update"] }`})
	t.Cleanup(func() { call("DELETE", "sys/policies/acl/"+name, nil) })
	if _, there := call("GET", "sys/auth", nil)["approle/"]; !there {
		call("POST", "sys/auth/approle", map[string]any{"type": "approle"})
		t.Cleanup(func() { call("DELETE", "sys/auth/approle", nil) })
	}
	call("POST", "auth/approle/role/"+name, map[string]any{"token_policies": name, "token_ttl": "2s",
		"token_max_ttl": "1h"})
	t.Cleanup(func() { call("DELETE", "auth/approle/role/"+name, nil) })
	role := call("GET", "auth/approle/role/"+name+"/role-id", nil)["role_id"].(string)
	secretID := call("POST", "auth/approle/role/"+name+"/secret-id", nil)["secret_id"].(string)

	var log bytes.Buffer
	c := vault.Must(vault.New(vault.Config{Auth: vault.AppRole(role, secretID), CacheFor: -1,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	ctx := t.Context()
	if _, err := c.Read(ctx, name, "app/db"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	for version := range 2 {
		if v, err := c.Write(ctx, name, "app/db", map[string]any{"password": "hush", "n": version}, version); err != nil ||
			v != version+1 {
			t.Fatalf("write %d: %d, %v", version, v, err)
		}
	}
	if _, err := c.Write(ctx, name, "app/db", map[string]any{"password": "lost"}, 1); !errors.Is(err, vault.ErrConflict) {
		t.Errorf("a write over another: %v", err)
	}
	if d, err := c.ReadVersion(ctx, name, "app/db", 1); err != nil || d.Version != 1 {
		t.Errorf("version 1: %v, %v", d, err)
	}
	if _, err := c.Read(ctx, name, "other"); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("what the policy does not allow: %v", err)
	}
	time.Sleep(5 * time.Second) // two lives of the token: the server's clock is not ours
	if v, err := c.Get(ctx, "vault://"+name+"/app/db#password"); err != nil || v.Reveal() != "hush" {
		t.Errorf("after two lives of the token: %v", err)
	}
	call("DELETE", name+"/data/app/db", nil)
	if _, err := c.Read(ctx, name, "app/db"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	wrong := vault.Must(vault.New(vault.Config{Auth: vault.AppRole(role, "wrong-hush"), Attempts: -1}))
	defer wrong.Close()
	if err := wrong.Check(ctx); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("a wrong secret id: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", &log)
	}
}
