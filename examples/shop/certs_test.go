package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// openShopWith runs the shop on free ports until the test ends.
func openShopWith(t *testing.T, args ...string) *allInOne {
	t.Helper()
	o := &options{}
	flags := pflag.NewFlagSet("shop", pflag.ContinueOnError)
	o.register(flags)
	if err := flags.Parse(append([]string{"--port-offset", "-1", "--data", t.TempDir()}, args...)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	h, err := newAllInOne(ctx, o)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return h
}

// tlsClient trusts the authority of a folder, and shows the named certificate.
func tlsClient(t *testing.T, dir, cert string, http2 bool) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	cfg.RootCAs.AppendCertsFromPEM(pem)
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, cert+".crt"), filepath.Join(dir, cert+".key"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: http2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestTLSDev(t *testing.T) {
	h := openShopWith(t, "--tls-dev")
	dir := filepath.Join(h.parts.config.Data, "tls")
	for _, http2 := range []bool{true, false} {
		c := tlsClient(t, dir, "", http2)
		res, err := c.Post(h.TLSURL()+"/users/token", "application/x-www-form-urlencoded",
			strings.NewReader("grant_type=password&username=ana&password=ana-password"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		want := "HTTP/1.1"
		if http2 {
			want = "HTTP/2.0"
		}
		if res.StatusCode != 200 || res.Proto != want || res.TLS.Version != tls.VersionTLS13 ||
			!bytes.Contains(body, []byte("access_token")) {
			t.Errorf("%d, %s, TLS %x: %s", res.StatusCode, res.Proto, res.TLS.Version, body)
		}
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := plain.Get(h.URL() + "/health")
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != 200 {
		t.Errorf("without TLS: %d", res.StatusCode)
	}
	if _, err := plain.Get(h.TLSURL() + "/health"); err == nil {
		t.Error("a client without the authority's certificate trusts it")
	}
}

func TestCertsCommandAndClients(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs([]string{"certs", dir})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), dir) {
		t.Fatalf("%v: %s", err, out.String())
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"gateway.key", "client.key"} {
		if info, err := os.Stat(at(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	h := openShopWith(t, "--tls-cert", at("gateway.crt"), "--tls-key", at("gateway.key"), "--tls-client-ca", at("ca.crt"))
	res, err := tlsClient(t, dir, "client", true).Get(h.TLSURL() + "/health")
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != 200 {
		t.Errorf("a client with a certificate: %d", res.StatusCode)
	}
	if _, err := tlsClient(t, dir, "", true).Get(h.TLSURL() + "/health"); err == nil {
		t.Error("a client without a certificate was let in")
	}
}

func TestTLSFlags(t *testing.T) {
	for _, o := range []options{
		{tlsDev: true, tlsCert: "x"}, {tlsClientCA: "x"}, {tlsCert: "x"}, {tlsKey: "x"}, {tlsCert: "/none", tlsKey: "/none"},
	} {
		o.data, o.portOffset, o.broker, o.logLevel, o.log = t.TempDir(), -1, "memory:", "info", "none"
		if h, err := newAllInOne(t.Context(), &o); err == nil {
			t.Errorf("%+v: opened", o)
			_ = h.parts.Close()
		}
	}
}
