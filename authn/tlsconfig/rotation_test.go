package tlsconfig_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn/tlsconfig"
)

// The server's authority is replaced: a client with the new one in its file reaches the server, and no longer one of
// the old authority.
func TestClientUsesReloadedRoots(t *testing.T) {
	dir, roots := t.TempDir(), filepath.Join(t.TempDir(), "roots.crt")
	before, after := ca(t, "before"), ca(t, "after")
	serve := func(authority *tlsconfig.DevCA) string {
		d := t.TempDir()
		must(t, authority.WriteFiles(d, "server", 0, "127.0.0.1", "shop.test"))
		f := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{CertFile: filepath.Join(d, "server.crt"),
			KeyFile: filepath.Join(d, "server.key"), ReloadEvery: -1, Logger: quiet}))
		t.Cleanup(func() { _ = f.Close() })
		return start(t, f.Server()).URL
	}
	old, rotated := serve(before), serve(after)
	must(t, before.WriteFiles(dir, "unused", 0, "x"))
	must(t, os.WriteFile(roots, before.CertPEM(), 0o600))

	named := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{RootCAFile: roots, ServerName: "shop.test", ReloadEvery: -1,
		Logger: quiet}))
	other := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{RootCAFile: roots, ServerName: "other.test", ReloadEvery: -1,
		Logger: quiet}))
	dialed := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{RootCAFile: roots, ReloadEvery: -1, Logger: quiet}))
	clients := map[string]*http.Transport{
		"Client with a ServerName": {TLSClientConfig: named.Client()},
		"Transport":                dialed.Transport(),
	}
	for _, tr := range clients {
		tr.DisableKeepAlives = true
	}
	expect := func(url string, want bool) {
		t.Helper()
		for name, tr := range clients {
			if _, _, err := get(t, &http.Client{Transport: tr}, url); (err == nil) != want {
				t.Errorf("%s: got %v, want reached: %v", name, err, want)
			}
		}
	}
	expect(old, true)
	expect(rotated, false)
	if _, _, err := get(t, &http.Client{Transport: &http.Transport{TLSClientConfig: other.Client()}}, old); err == nil {
		t.Error("a certificate of another name was accepted")
	}
	must(t, os.WriteFile(roots, after.CertPEM(), 0o600))
	for _, f := range []*tlsconfig.Files{named, dialed} {
		must(t, f.Reload())
	}
	expect(old, false)
	expect(rotated, true)
}

func TestCertificateNotYetValidKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	must(t, ca(t, "dev").WriteFiles(dir, "server", 0, "127.0.0.1"))
	cfg := tlsconfig.Config{CertFile: certFile, KeyFile: keyFile, ReloadEvery: -1, Logger: quiet}
	f := tlsconfig.Must(tlsconfig.New(cfg))
	good, err := f.Server().GetCertificate(&tls.ClientHelloInfo{})
	must(t, err)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(time.Hour),
		NotAfter: time.Now().Add(2 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	if err := f.Reload(); err == nil || !strings.Contains(err.Error(), "valid only from") {
		t.Errorf("got %v, want an error that says from when the certificate is valid", err)
	}
	if now, err := f.Server().GetCertificate(&tls.ClientHelloInfo{}); err != nil || now != good {
		t.Errorf("the good certificate was replaced: %v", err)
	}
	if _, err := tlsconfig.New(cfg); err == nil {
		t.Error("a server starts with a certificate that is not valid yet")
	}
}

// A certificate and its key are replaced one after the other, over and over: no reload takes a half of each for an
// error.
func TestReloadWhileFilesAreReplaced(t *testing.T) {
	dir := t.TempDir()
	authority := ca(t, "dev")
	must(t, authority.WriteFiles(dir, "server", 0, "127.0.0.1"))
	f := tlsconfig.Must(tlsconfig.New(tlsconfig.Config{CertFile: filepath.Join(dir, "server.crt"),
		KeyFile: filepath.Join(dir, "server.key"), ReloadEvery: -1, Logger: quiet}))
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			cert, key, err := authority.Issue(0, "127.0.0.1")
			if err == nil {
				err = replace(filepath.Join(dir, "server.crt"), cert)
			}
			time.Sleep(5 * time.Millisecond) // between the two
			if err == nil {
				err = replace(filepath.Join(dir, "server.key"), key)
			}
			if err != nil {
				t.Error(err)
			}
			time.Sleep(45 * time.Millisecond)
		}
	}()
	for ctx.Err() == nil {
		if err := f.Reload(); err != nil {
			t.Error(err)
		}
	}
	<-done
}

// replace writes a file as tools do: a new one takes the place of the old.
func replace(name string, data []byte) error {
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
