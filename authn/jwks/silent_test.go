package jwks_test

import (
	"bytes"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/jwks"
	"github.com/sillar-go/sillar/internal/faultproxy"
)

// lines is a bytes.Buffer that is safe for concurrent use.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The HTTP/2 connection to the endpoint goes silent. The known keys go on, the log says that they are not read, and
// pings find out that the connection is dead: a later read takes a new one.
func TestSilentConnectionIsReplaced(t *testing.T) {
	doc, kid := document(t)
	var answered atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			answered.Add(1)
		}
		_, _ = w.Write([]byte(doc))
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
	log := &lines{}
	s := jwks.Must(jwks.New("https://"+proxy.Addr(), jwks.Config{Refresh: 200 * time.Millisecond,
		MinInterval: 100 * time.Millisecond, Timeout: 500 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(log, nil))}))
	t.Cleanup(func() { _ = s.Close() })
	known := func() {
		t.Helper()
		begin := time.Now()
		if _, err := s.Keys(t.Context(), kid, authn.EdDSA); err != nil {
			t.Errorf("a known key: %v", err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("a known key took %s", took)
		}
	}
	known()
	proxy.Freeze()
	known()
	before, begin := answered.Load(), time.Now() // one more may have been answered before the connection went silent
	for ; answered.Load() <= before; time.Sleep(100 * time.Millisecond) {
		known()
		if time.Since(begin) > time.Minute {
			t.Fatal("waited a minute for a read on a new connection")
		}
	}
	t.Logf("a new connection after %s", time.Since(begin))
	if !strings.Contains(log.String(), "the key set could not be read") {
		t.Errorf("the log does not say that keys were not read:\n%s", log)
	}
}
