package gateway_test

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

// issue writes a certificate of its own authority, with its key.
func issue(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// A route has CAs, a client certificate and a server name of its own, and may stay with HTTP/1.1.
func TestTransportTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		fmt.Fprint(w, r.Proto, " ", name, " ", r.TLS.ServerName)
	}))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := issue(t, dir, "first")
	route := func(prefix string, tr gateway.Transport) gateway.Route {
		return gateway.Route{Prefix: prefix, Upstreams: []string{srv.URL}, Transport: &tr, DialWait: -1}
	}
	gw, url := start(t, gateway.Config{Routes: []gateway.Route{
		route("/h2", gateway.Transport{TLS: &gateway.TransportTLS{CAFile: ca, CertFile: certFile, KeyFile: keyFile,
			ServerName: "example.com"}}),
		route("/h1", gateway.Transport{HTTP1: true, TLS: &gateway.TransportTLS{CAFile: ca}}),
		route("/once", gateway.Transport{MaxIdle: -1, HTTP1: true, TLS: &gateway.TransportTLS{CAFile: ca, CertFile: certFile,
			KeyFile: keyFile, ServerName: "example.com"}}),
		route("/name", gateway.Transport{TLS: &gateway.TransportTLS{CAFile: ca, ServerName: "other.test"}}),
		route("/none", gateway.Transport{}),
	}})
	for path, want := range map[string]string{
		"/h2": "HTTP/2.0 first example.com", "/h1": "HTTP/1.1  ", "/once": "HTTP/1.1 first example.com", "/name": "502",
		"/none": "502",
	} {
		a := do(t, "GET", url+path, "")
		if got := a.text; want == "502" && a.StatusCode != 502 || want != "502" && got != want {
			t.Errorf("%s: got %s %q, want %q", path, a.Status, got, want)
		}
	}
	issue(t, dir, "second") // in the place of the first
	if a := do(t, "GET", url+"/once", ""); a.text != "HTTP/1.1 second example.com" {
		t.Errorf("with a new certificate: got %q", a.text)
	}
	if err := os.WriteFile(keyFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := do(t, "GET", url+"/once", ""); a.text != "HTTP/1.1 second example.com" {
		t.Errorf("with a broken file: got %q, want the last certificate", a.text)
	}
	for _, broken := range []gateway.TransportTLS{{CAFile: "none"}, {CAFile: keyFile},
		{CertFile: certFile, KeyFile: keyFile}} {
		err := gw.Reload([]gateway.Route{route("/a", gateway.Transport{TLS: &broken})})
		if err == nil || !strings.Contains(err.Error(), "transport: tls: ") {
			t.Errorf("%+v: %v", broken, err)
		}
	}
}

// The authority of the instances is replaced while the gateway runs: new connections are verified with the new one over
// HTTP/1.1 and HTTP/2, without a Reload. A file that cannot be read changes nothing, and a handshake has its bound.
func TestAuthorityOfInstancesIsReplaced(t *testing.T) {
	dir := t.TempDir()
	var pair atomic.Pointer[tls.Certificate]
	replace := func(name string) (certFile string) {
		t.Helper()
		certFile, keyFile := issue(t, dir, name)
		loaded, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		pair.Store(&loaded)
		return certFile
	}
	ca := replace("first")
	first := pair.Load()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // GOAWAY over HTTP/2: each request needs a connection
		fmt.Fprint(w, r.Proto)
	}))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*pair.Load()}, NextProtos: []string{"h2", "http/1.1"}}, nil
	}}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and no handshake comes
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/h1", Upstreams: []string{srv.URL}, DialWait: -1,
			Transport: &gateway.Transport{HTTP1: true, MaxIdle: -1, TLS: &gateway.TransportTLS{CAFile: ca}}},
		{Prefix: "/h2", Upstreams: []string{srv.URL}, DialWait: -1,
			Transport: &gateway.Transport{TLS: &gateway.TransportTLS{CAFile: ca}}},
		{Prefix: "/silent", Upstreams: []string{"https://" + silent.Addr().String()}, DialWait: -1, Timeout: time.Minute,
			Transport: &gateway.Transport{HandshakeTimeout: 50 * time.Millisecond,
				TLS: &gateway.TransportTLS{CAFile: ca}}},
	}})
	expect := func(when string, want map[string]string) {
		t.Helper()
		for path, text := range want {
			a := do(t, "GET", url+path, "")
			if text != "" && a.text != text || text == "" && a.StatusCode != http.StatusBadGateway {
				t.Errorf("%s, %s: got %s %q, want %q", when, path, a.Status, a.text, cmp.Or(text, "502"))
			}
		}
	}
	works := map[string]string{"/h1": "HTTP/1.1", "/h2": "HTTP/2.0"}
	expect("the first authority", works)
	replace("second")
	expect("the second authority", works)
	if err := os.WriteFile(ca, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a broken file", works)
	replace("third")
	pair.Store(first)
	expect("an authority that was removed", map[string]string{"/h1": "", "/h2": ""})
	began := time.Now()
	if a := do(t, "GET", url+"/silent", ""); a.StatusCode != http.StatusBadGateway || time.Since(began) > 20*time.Second {
		t.Errorf("a silent handshake: got %s after %s, want 502 soon", a.Status, time.Since(began))
	}
}

// The pool of a route's instances has the size that the route says.
func TestTransportPool(t *testing.T) {
	connections := map[string]bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true // one request at a time
	}))
	defer srv.Close()
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/kept", Upstreams: []string{srv.URL}}, {Prefix: "/none", Upstreams: []string{srv.URL},
			Transport: &gateway.Transport{MaxIdle: -1}},
	}})
	for path, want := range map[string]int{"/kept": 1, "/none": 5} {
		clear(connections)
		for range 5 {
			do(t, "GET", url+path, "")
		}
		if len(connections) != want {
			t.Errorf("%s: 5 requests used %d connections, want %d", path, len(connections), want)
		}
	}
}

// The service sees the client's Host only where the route says so.
func TestPreserveHost(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, " ", r.Header.Get("X-Forwarded-Host"))
	})
	_, url := start(t, gateway.Config{Routes: []gateway.Route{
		{Prefix: "/kept", Upstreams: []string{up}, PreserveHost: true}, {Prefix: "/own", Upstreams: []string{up}},
	}})
	for path, want := range map[string]string{"/kept": "shop.example shop.example", "/own": strings.TrimPrefix(up,
		"http://") + " shop.example"} {
		text := raw(t, url, "GET "+path+" HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
		if !strings.Contains(text, want) {
			t.Errorf("%s: %q, want %q", path, text, want)
		}
	}
}
