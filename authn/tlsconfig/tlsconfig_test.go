package tlsconfig_test

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/authn/tlsconfig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ca(t *testing.T, name string) *tlsconfig.DevCA {
	t.Helper()
	c, err := tlsconfig.NewDevCA(name)
	must(t, err)
	return c
}

// start serves the common name of the client's certificate.
func start(t *testing.T, c *tls.Config) *httptest.Server {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	srv.TLS = c
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, c *http.Client, url string) (body, server string, err error) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return string(b), res.TLS.PeerCertificates[0].SerialNumber.String(), nil
}

func client(t *testing.T, f *tlsconfig.Files) *http.Client {
	tr := &http.Transport{TLSClientConfig: f.Client()}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestMutualAndReload(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	authority, stranger := ca(t, "dev"), ca(t, "stranger")
	must(t, authority.WriteFiles(dir, "server", 0, "127.0.0.1"))
	must(t, authority.WriteFiles(dir, "orders", 0, "orders"))
	must(t, stranger.WriteFiles(t.TempDir(), "x", 0, "x"))
	sdir := t.TempDir()
	must(t, stranger.WriteFiles(sdir, "evil", 0, "evil"))

	var reloads []error
	files := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{CertFile: at("server.crt"), KeyFile: at("server.key"),
		ClientCAFile: at("ca.crt"), ReloadEvery: -1,
		Logger: quiet, OnReload: func(err error) { reloads = append(reloads, err) }}))
	defer files.Close()
	srv := start(t, files.Server())
	open := func(c tlsconfig.Config) *tlsconfig.Files {
		c.RootCAFile, c.ReloadEvery, c.Logger = at("ca.crt"), -1, quiet
		f := tlsconfig.Must(tlsconfig.New(c))
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	good := client(t, open(tlsconfig.Config{CertFile: at("orders.crt"), KeyFile: at("orders.key")}))
	body, first, err := get(t, good, srv.URL)
	if err != nil || body != "orders" {
		t.Fatalf("%q, %v", body, err)
	}
	for name, c := range map[string]tlsconfig.Config{
		"no certificate": {}, "a stranger's": {CertFile: filepath.Join(sdir, "evil.crt"),
			KeyFile: filepath.Join(sdir, "evil.key")},
	} {
		if _, _, err := get(t, client(t, open(c)), srv.URL); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	old := open(tlsconfig.Config{CertFile: at("orders.crt"), KeyFile: at("orders.key")}).Client()
	old.MaxVersion = tls.VersionTLS11
	tr := &http.Transport{TLSClientConfig: old}
	if _, err := (&http.Client{Transport: tr}).Get(srv.URL); err == nil {
		t.Error("TLS 1.1 was accepted")
	}

	must(t, files.Reload()) // nothing has changed
	must(t, os.WriteFile(at("server.crt"), []byte("half"), 0o644))
	if files.Reload() == nil {
		t.Error("a damaged certificate was taken")
	}
	must(t, authority.WriteFiles(dir, "server", -time.Hour, "127.0.0.1"))
	if files.Reload() == nil {
		t.Error("an expired certificate was taken")
	}
	fresh := func() *http.Client {
		return client(t, open(tlsconfig.Config{CertFile: at("orders.crt"), KeyFile: at("orders.key")}))
	}
	if _, serial, err := get(t, fresh(), srv.URL); err != nil || serial != first {
		t.Errorf("after bad files: %s, %v", serial, err)
	}
	must(t, authority.WriteFiles(dir, "server", 0, "127.0.0.1"))
	must(t, files.Reload())
	if _, serial, err := get(t, good, srv.URL); err != nil || serial != first {
		t.Errorf("the open connection: %s, %v", serial, err)
	}
	if _, serial, err := get(t, fresh(), srv.URL); err != nil || serial == first {
		t.Errorf("a new connection: %s, %v", serial, err)
	}
	if len(reloads) != 3 || reloads[0] == nil || reloads[1] == nil || reloads[2] != nil {
		t.Errorf("got the reloads %v", reloads)
	}
}

func TestOptionalAndLoop(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	authority := ca(t, "dev")
	must(t, authority.WriteFiles(dir, "server", 0, "127.0.0.1"))
	reported := make(chan error, 1)
	files := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{CertFile: at("server.crt"), KeyFile: at("server.key"),
		ClientCAFile: at("ca.crt"), ClientOptional: true,
		ReloadEvery: 10 * time.Millisecond, Logger: quiet, OnReload: func(err error) {
			select {
			case reported <- err:
			default:
			}
		}}))
	defer files.Close()
	srv := start(t, files.Server())
	f := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{RootCAFile: at("ca.crt"), ReloadEvery: -1}))
	defer f.Close()
	if body, _, err := get(t, client(t, f), srv.URL); err != nil || body != "" {
		t.Errorf("%q, %v", body, err)
	}
	must(t, os.WriteFile(at("server.key"), []byte("x"), 0o600))
	select {
	case err := <-reported:
		if err == nil {
			t.Error("a damaged key was taken")
		}
	case <-time.After(30 * time.Second):
		t.Error("the files are not read again")
	}
	for name, c := range map[string]tlsconfig.Config{"half": {CertFile: "x"}, "missing": {CertFile: "/none",
		KeyFile: "/none"}, "no CA": {RootCAFile: at("server.key")}} {
		if _, err := tlsconfig.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestNoResumptionWithClientCertificates: a resumed session shows no certificate, so a client that was
// admitted once would be admitted as long as its ticket lives, also after its authority was removed.
func TestNoResumptionWithClientCertificates(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	must(t, ca(t, "dev").WriteFiles(dir, "server", 0, "127.0.0.1"))
	for clientCA, resumes := range map[string]bool{"": true, at("ca.crt"): false} {
		files := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{CertFile: at("server.crt"), KeyFile: at("server.key"),
			ClientCAFile: clientCA, ReloadEvery: -1, Logger: quiet}))
		defer files.Close()
		srv := start(t, files.Server())
		own := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{CertFile: at("server.crt"), KeyFile: at("server.key"),
			RootCAFile: at("ca.crt"), ReloadEvery: -1, Logger: quiet}))
		defer own.Close()
		cfg := own.Client()
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		resumed := false
		for range 3 {
			tr := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
			res, err := (&http.Client{Transport: tr}).Get(srv.URL)
			must(t, err)
			_, _ = io.Copy(io.Discard, res.Body)
			must(t, res.Body.Close())
			resumed = resumed || res.TLS.DidResume
		}
		if resumed != resumes {
			t.Errorf("client authority %q: resumed %v", clientCA, resumed)
		}
	}
}

// What a program changes in the configuration holds for every connection, and after a reload.
func TestServerThatIsChanged(t *testing.T) {
	dir := t.TempDir()
	authority := ca(t, "dev")
	must(t, authority.WriteFiles(dir, "server", 0, "127.0.0.1"))
	f := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{CertFile: filepath.Join(dir, "server.crt"),
		KeyFile:    filepath.Join(dir, "server.key"),
		RootCAFile: filepath.Join(dir, "ca.crt"), ReloadEvery: -1, Logger: quiet}))
	defer f.Close()
	c := f.Server()
	c.MinVersion = tls.VersionTLS13
	srv := start(t, c)
	for range 2 {
		old := f.Client()
		old.MaxVersion = tls.VersionTLS12
		tr := &http.Transport{TLSClientConfig: old}
		if _, _, err := get(t, &http.Client{Transport: tr}, srv.URL); err == nil {
			t.Error("TLS 1.2 passes where the program wants 1.3")
		}
		tr.CloseIdleConnections()
		if _, _, err := get(t, client(t, f), srv.URL); err != nil {
			t.Error(err)
		}
		must(t, authority.WriteFiles(dir, "server", 0, "127.0.0.1"))
		must(t, f.Reload())
	}
}
