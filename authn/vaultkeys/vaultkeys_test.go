package vaultkeys_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
	"github.com/sillar-go/sillar/authn/secrets/vault"
	"github.com/sillar-go/sillar/authn/vaultkeys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kv is a KV store of version 2 with one secret, as Vault answers for it.
type kv struct {
	mu       sync.Mutex
	versions []json.RawMessage
}

func (k *kv) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	reply := func(code int, v any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	n := len(k.versions)
	switch {
	case r.URL.Path == "/v1/auth/token/lookup-self":
		reply(200, map[string]any{"data": map[string]any{"ttl": 0}})
	case r.URL.Path != "/v1/secret/data/shop/keys", r.Method == "GET" && n == 0:
		reply(404, map[string]any{"errors": []string{}})
	case r.Method == "GET":
		reply(200, map[string]any{"data": map[string]any{"data": k.versions[n-1], "metadata": map[string]any{"version": n}}})
	default:
		var body struct {
			Data    json.RawMessage
			Options struct{ CAS *int }
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		if body.Options.CAS == nil || *body.Options.CAS != n {
			reply(400, map[string]any{"errors": []string{"check-and-set parameter did not match the current version"}})
			return
		}
		k.versions = append(k.versions, body.Data)
		reply(200, map[string]any{"data": map[string]any{"version": n + 1}})
	}
}

func TestKeyStoreConformance(t *testing.T) {
	authntest.RunKeys(t, func(t *testing.T) (authn.KeyStore, func() authn.KeyStore) {
		srv := httptest.NewServer(&kv{})
		t.Cleanup(srv.Close)
		open := func() authn.KeyStore {
			c := vault.Must(vault.New(vault.Config{Address: srv.URL, Auth: vault.Token("t")}))
			t.Cleanup(func() { _ = c.Close() })
			return vaultkeys.Must(vaultkeys.New(c, "secret", "shop/keys"))
		}
		return open(), open
	})
}
