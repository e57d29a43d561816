package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/authn/tlsconfig"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/users/userpb"
)

// serviceCerts writes a certificate that all services of one process share, and returns its folder and authority.
func serviceCerts(t *testing.T) (string, *tlsconfig.DevCA) {
	t.Helper()
	ca, err := tlsconfig.NewDevCA("services")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := writeServiceCert(ca, dir, "users"); err != nil {
		t.Fatal(err)
	}
	return dir, ca
}

func TestDemoWithTLSBetweenServices(t *testing.T) {
	dir, _ := serviceCerts(t)
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs([]string{"demo", "--data", t.TempDir(), "--service-tls", dir})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "All invariants hold") {
		t.Fatalf("got %v, want a demonstration that passes:\n%s", err, out.String())
	}
}

// caller is a client of services with the certificate of a folder, "" for none, that trusts the authority ca.
func caller(t *testing.T, ca *tlsconfig.DevCA, dir string) *tls.Config {
	t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	cfg.RootCAs.AppendCertsFromPEM(ca.CertPEM())
	if dir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, platform.CertFile), filepath.Join(dir, platform.KeyFile))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg
}

// getWith returns the status of an answer, and the serial number of the server's certificate.
func getWith(t *testing.T, cfg *tls.Config, url string) (status int, serial string, err error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	if res.TLS != nil {
		serial = res.TLS.PeerCertificates[0].SerialNumber.String()
	}
	return res.StatusCode, serial, err
}

func getUser(t *testing.T, address string, security credentials.TransportCredentials) codes.Code {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(security))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = userpb.NewUserServiceClient(conn).GetUser(t.Context(), &userpb.GetUserRequest{UserId: "1"})
	return status.Code(err)
}

// Every service, but the gateway, admits callers with a certificate of the authority only.
func TestServicesRefuseStrangers(t *testing.T) {
	dir, ca := serviceCerts(t)
	foreign, _ := serviceCerts(t)
	h := openShopWith(t, "--service-tls", dir)
	for _, s := range h.services {
		plain := strings.Replace(s.URL(), "https://", "http://", 1)
		if s.Name == "gateway" {
			if code, _, err := getWith(t, nil, plain+"/health"); code != http.StatusOK {
				t.Errorf("gateway: got %d, %v for clients, want 200", code, err)
			}
			continue
		}
		for _, path := range []string{"/openapi.json", "/api/v1/" + s.Name, "/docs", "/health/x"} {
			if code, _, err := getWith(t, nil, plain+path); err == nil && code != http.StatusBadRequest {
				t.Errorf("%s: http: got %d for %s, want a refusal", s.Name, code, path)
			}
			if code, _, err := getWith(t, caller(t, ca, ""), s.URL()+path); code != http.StatusForbidden {
				t.Errorf("%s: without a certificate: got %d, %v for %s, want 403", s.Name, code, err, path)
			}
		}
		for _, path := range []string{"/health", "/ready", "/metrics", "/openapi.json"} {
			if code, _, err := getWith(t, caller(t, ca, foreign), s.URL()+path); err == nil {
				t.Errorf("%s: a certificate of a foreign authority: got %d for %s, want no handshake", s.Name, code, path)
			}
			if code, _, err := getWith(t, caller(t, ca, dir), s.URL()+path); code != http.StatusOK {
				t.Errorf("%s: a service: got %d, %v for %s, want 200", s.Name, code, err, path)
			}
		}
		if code, _, err := getWith(t, caller(t, ca, ""), s.URL()+"/health"); code != http.StatusOK {
			t.Errorf("%s: a probe: got %d, %v, want 200", s.Name, code, err)
		}
	}
	address := h.services[0].Peers.UsersGRPC
	for name, c := range map[string]struct {
		security credentials.TransportCredentials
		want     codes.Code
	}{
		"plain":                 {insecure.NewCredentials(), codes.Unavailable},
		"without a certificate": {credentials.NewTLS(caller(t, ca, "")), codes.Unavailable},
		"a foreign certificate": {credentials.NewTLS(caller(t, ca, foreign)), codes.Unavailable},
		"a service, no token":   {credentials.NewTLS(caller(t, ca, dir)), codes.Unauthenticated},
	} {
		if got := getUser(t, address, c.security); got != c.want {
			t.Errorf("gRPC, %s: got %v, want %v", name, got, c.want)
		}
	}
}

// The certificates, and then the authority too, are replaced while the shop runs: new connections have the new ones,
// and the gateway and the services still reach each other, over kept and new connections of HTTP and gRPC.
func TestCertificatesOfServicesRotate(t *testing.T) {
	dir, ca := serviceCerts(t)
	h := openShopWith(t, "--service-tls", dir)
	files := h.parts.config.ServiceTLS
	users := h.services[0].URL() + "/health"
	_, first, err := getWith(t, caller(t, ca, dir), users)
	if err != nil {
		t.Fatal(err)
	}
	order := func(what string) {
		t.Helper()
		token := signIn(t, h.URL(), "ana")
		if code, body := ask(t, t.Context(), token, "GET", h.URL()+"/orders/api/v1/orders", ""); code != http.StatusOK {
			t.Errorf("%s: got %d %v, want 200", what, code, body)
		}
	}
	order("before")
	address := h.services[0].Peers.UsersGRPC
	security, err := files.GRPCClient(address) // as the services made theirs when they started
	if err != nil {
		t.Fatal(err)
	}
	transport := files.Transport()
	transport.DisableKeepAlives = true
	for _, what := range []string{"another certificate", "another authority"} {
		if what == "another authority" {
			if ca, err = tlsconfig.NewDevCA("next"); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(writeServiceCert(ca, dir, "users"), files.Reload()); err != nil {
			t.Fatal(err)
		}
		_, now, err := getWith(t, caller(t, ca, dir), users)
		if err != nil || now == first {
			t.Errorf("%s: got the certificate %s, %v; want another", what, now, err)
		}
		first = now
		order(what)
		if got := getUser(t, address, security); got != codes.Unauthenticated {
			t.Errorf("%s: gRPC: got %v, want Unauthenticated: a handshake, and no token", what, got)
		}
		res, err := (&http.Client{Transport: transport}).Get(h.services[0].URL() + "/openapi.json")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Errorf("%s: HTTP: got %s, want 200", what, res.Status)
		}
	}
}

func TestServiceTLSNeedsItsFiles(t *testing.T) {
	dir, _ := serviceCerts(t)
	if err := os.Remove(filepath.Join(dir, platform.KeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.OpenServiceTLS(dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("without a key: want an error")
	}
}

// With the switch, addresses that say http are meant as https, save that of the gateway.
func TestServiceTLSIsOneSwitch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	cmd := root()
	cmd.SetArgs([]string{"certs", "--services", dir})
	cmd.SetOut(io.Discard)
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		files, err := platform.OpenServiceTLS(filepath.Join(dir, s.name), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		_ = files.Close()
	}
	o := &options{serviceTLS: dir, peers: platform.Peers{Users: "http://users:8000"}}
	o.fillPeers()
	if o.peers.Users != "https://users:8000" || !strings.HasPrefix(o.peers.Orders, "https://127.0.0.1:") {
		t.Errorf("got the addresses %s and %s, want https", o.peers.Users, o.peers.Orders)
	}
	for address, want := range map[string]string{
		"http://127.0.0.1:8000/ready": "https://127.0.0.1:8000/ready",
		"http://127.0.0.1:8080/ready": "http://127.0.0.1:8080/ready",
	} {
		if got := o.secured(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}
