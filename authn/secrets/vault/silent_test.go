package vault_test

import (
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn/secrets/vault"
	"github.com/sillar-go/sillar/internal/faultproxy"
)

// The HTTP/2 connection to the server goes silent. Each read ends by its Timeout, and pings find out that the
// connection is dead: a later read takes a new one.
func TestSilentConnectionIsReplaced(t *testing.T) {
	s := newServer()
	s.kv["secret/data/a"] = []map[string]any{{"k": "v"}}
	srv := httptest.NewUnstartedServer(s)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	proxy := faultproxy.New(t, srv.Listener.Addr().String())
	t.Setenv("VAULT_CACERT_BYTES", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
		Bytes: srv.Certificate().Raw})))
	c := vault.Must(vault.New(vault.Config{Address: "https://" + proxy.Addr(), Auth: vault.Token("root-hush"),
		Timeout: 500 * time.Millisecond, Attempts: -1, CacheFor: -1}))
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Get(t.Context(), "vault://secret/a#k"); err != nil {
		t.Fatal(err)
	}
	proxy.Freeze()
	begin, failed := time.Now(), 0
	for {
		asked := time.Now()
		_, err := c.Get(t.Context(), "vault://secret/a#k")
		if took := time.Since(asked); took > 5*time.Second {
			t.Fatalf("a read took %s, want some 500ms", took)
		}
		if err == nil {
			break
		}
		if failed++; !errors.Is(err, vault.ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d reads failed in a minute; no new connection was made", failed)
		}
	}
	if failed == 0 {
		t.Error("no read failed: the connection was not silent")
	}
	t.Logf("a new connection after %s", time.Since(begin))
}
