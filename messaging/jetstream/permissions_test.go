package jetstream_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

// logs keeps what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A wrong password and a missing permission are an ErrPermission; no password is in errors or logs.
func TestMissingPermissionsAreTyped(t *testing.T) {
	t.Parallel()
	srv := own(t, &server.Options{Users: []*server.User{
		{Username: "all", Password: "s3cret"},
		{Username: "some", Password: "s3cret",
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"some.forbidden",
				"$JS.API.CONSUMER.>"}}}},
	}})
	host := srv.Addr().String()
	out := &logs{}
	logger := slog.New(slog.NewTextHandler(out, nil))
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, jetstream.ErrPermission) || strings.Contains(err.Error(), "s3cret") ||
			strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%s: %v", what, err)
		}
	}
	wrong := open(t, "nats://all:wr0ng@"+host, jetstream.Config{Logger: logger})
	check("a wrong password", wrong.Publish(t.Context(), "t", 1))
	_, err := wrong.Subscribe(t.Context(), messaging.Subscription{Group: "g"})
	check("a wrong password", err)
	check("a wrong password", wrong.Health(t.Context()))

	some := open(t, "nats://some:s3cret@"+host, jetstream.Config{Logger: logger, Stream: "some"})
	if err := some.Publish(t.Context(), "allowed", 1); err != nil {
		t.Error(err)
	}
	check("a topic", some.Publish(t.Context(), "forbidden", 1))
	_, err = some.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"t"}})
	check("the making of consumers", err)
	if s := out.String(); s == "" || strings.Contains(s, "s3cret") || strings.Contains(s, "wr0ng") {
		t.Errorf("logged: %s", s)
	}
}

// TLS, and credentials of an account that an operator has signed.
func TestTLSAndCredentials(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	operator, account, system, user := key(t, nkeys.CreateOperator), key(t, nkeys.CreateAccount),
		key(t, nkeys.CreateAccount), key(t, nkeys.CreateUser)
	claims := jwt.NewAccountClaims(public(t, account))
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	signed := must(t)(claims.Encode(operator))
	oc := jwt.NewOperatorClaims(public(t, operator))
	oc.SystemAccount = public(t, system)
	sys := must(t)(jwt.NewAccountClaims(public(t, system)).Encode(operator))
	resolver := &server.MemAccResolver{}
	if err := errors.Join(resolver.Store(public(t, account), signed), resolver.Store(public(t, system), sys)); err != nil {
		t.Fatal(err)
	}
	srv := own(t, &server.Options{TrustedOperators: []*jwt.OperatorClaims{oc}, AccountResolver: resolver,
		SystemAccount: public(t, system),
		TLSConfig:     &tls.Config{Certificates: []tls.Certificate{cert}}})
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(must(t)(jwt.NewUserClaims(public(t, user)).Encode(account)), seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(file, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	url := "tls://" + srv.Addr().String()
	b := open(t, url, jetstream.Config{TLS: &tls.Config{RootCAs: pool}, Credentials: file})
	if err := b.Publish(within(t, patience), "t", 1); err != nil {
		t.Error(err)
	}
	untrusted := open(t, url, jetstream.Config{TLS: &tls.Config{RootCAs: x509.NewCertPool()}, Credentials: file})
	if err := untrusted.Publish(within(t, 200*time.Millisecond), "t", 1); !errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("a server that is not trusted: %v", err)
	}
	anonymous := open(t, url, jetstream.Config{TLS: &tls.Config{RootCAs: pool}})
	if err := anonymous.Publish(within(t, patience), "t", 1); !errors.Is(err, jetstream.ErrPermission) {
		t.Errorf("without credentials: %v", err)
	}
}

func key(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t *testing.T, k nkeys.KeyPair) string {
	t.Helper()
	return must(t)(k.PublicKey())
}

func must(t *testing.T) func(string, error) string {
	return func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// certificate returns one for loopback that signs itself.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return srv.TLS.Certificates[0], pool
}
