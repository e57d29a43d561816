package tokensource_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn/tokensource"
	"github.com/sillar-go/sillar/internal/faultproxy"
)

// The HTTP/2 connection to the endpoint goes silent. A request ends by its Timeout, and a later one takes a new
// connection: pings notice that the old one is dead.
func TestSilentConnectionIsReplaced(t *testing.T) {
	answered := make(chan string, 100)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answered <- r.Proto
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"access_token":"t","token_type":"Bearer","expires_in":1}`)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", ca) // no other test of this package reads the system's
	proxy := faultproxy.New(t, srv.Listener.Addr().String())
	s := tokensource.Must(tokensource.New(tokensource.Config{TokenURL: "https://" + proxy.Addr(), ClientID: "c",
		ClientSecret: "s", Timeout: 500 * time.Millisecond, RetryAfter: time.Millisecond}))
	if _, err := s.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if proto := <-answered; proto != "HTTP/2.0" {
		t.Fatalf("the endpoint is asked by %s", proto)
	}
	proxy.Freeze()
	begin, failed := time.Now(), 0
	for len(answered) == 0 {
		asked := time.Now()
		if _, err := s.Token(t.Context()); err != nil {
			failed++
		}
		if took := time.Since(asked); took > 5*time.Second {
			t.Fatalf("Token took %s, want some 500ms", took)
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d requests failed in a minute; no new connection was made", failed)
		}
		time.Sleep(10 * time.Millisecond) // a token is kept for a second
	}
	if failed == 0 {
		t.Error("no request failed: the connection was not silent")
	}
	t.Logf("a new connection after %s", time.Since(begin))
}
