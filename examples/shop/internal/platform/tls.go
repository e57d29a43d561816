package platform

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sillar-go/sillar/authn/tlsconfig"
)

// Files of a folder with the certificate of a service, as cert-manager lays them out in a Secret.
const (
	CertFile = "tls.crt"
	KeyFile  = "tls.key"
	CAFile   = "ca.crt"
)

// reloadEvery is how often certificates are read again. A Secret reaches its volume within about a minute.
const reloadEvery = 10 * time.Second

// ServiceTLS is mutual TLS between the services: each shows its certificate, as server and as client, and accepts those
// of the same authority only. Certificates that are replaced are read without a restart.
type ServiceTLS struct {
	dir    string
	log    *slog.Logger
	strict *tlsconfig.Files
	probed *tlsconfig.Files

	mu    sync.Mutex
	named []*tlsconfig.Files
}

// OpenServiceTLS reads the certificate of a service, its key, and the authority from dir.
func OpenServiceTLS(dir string, log *slog.Logger) (*ServiceTLS, error) {
	t := &ServiceTLS{dir: dir, log: log}
	var err error
	if t.strict, err = t.open("", false); err != nil {
		return nil, err
	}
	if t.probed, err = t.open("", true); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *ServiceTLS) open(server string, optional bool) (*tlsconfig.Files, error) {
	return tlsconfig.New(tlsconfig.Config{
		CertFile:       filepath.Join(t.dir, CertFile),
		KeyFile:        filepath.Join(t.dir, KeyFile),
		ClientCAFile:   filepath.Join(t.dir, CAFile),
		RootCAFile:     filepath.Join(t.dir, CAFile),
		ClientOptional: optional,
		ServerName:     server,
		ReloadEvery:    reloadEvery,
		Logger:         t.log,
	})
}

// CA is the file of the authority.
func (t *ServiceTLS) CA() string { return filepath.Join(t.dir, CAFile) }

// Client is a configuration for clients, whose authority is that of the time of the call.
func (t *ServiceTLS) Client() *tls.Config { return t.strict.Client() }

// Transport is for HTTP clients of other services.
func (t *ServiceTLS) Transport() *http.Transport { return t.strict.Transport() }

// Reload reads all files now.
func (t *ServiceTLS) Reload() error {
	t.mu.Lock()
	all := append([]*tlsconfig.Files{t.strict, t.probed}, t.named...)
	t.mu.Unlock()
	var errs []error
	for _, f := range all {
		errs = append(errs, f.Reload())
	}
	return errors.Join(errs...)
}

// Close ends the reading of files.
func (t *ServiceTLS) Close() error {
	t.mu.Lock()
	all := append([]*tlsconfig.Files{t.strict, t.probed}, t.named...)
	t.mu.Unlock()
	var errs []error
	for _, f := range all {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// GRPCServer is the transport security of a gRPC server: mutual TLS, or none without t.
func (t *ServiceTLS) GRPCServer() credentials.TransportCredentials {
	if t == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(t.strict.Server())
}

// GRPCClient is that of a client of the server at address, host:port.
func (t *ServiceTLS) GRPCClient(address string) (credentials.TransportCredentials, error) {
	if t == nil {
		return insecure.NewCredentials(), nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	f, err := t.open(host, false)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.named = append(t.named, f)
	t.mu.Unlock()
	return credentials.NewTLS(f.Client()), nil
}

// probes are the paths that callers without a certificate may read: Kubernetes' probes show none, and Prometheus need
// not have one.
var probes = map[string]bool{"/health": true, "/ready": true, "/metrics": true}

// certified refuses callers that show no certificate of the services' authority, save for probes.
func certified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 && !probes[r.URL.Path] {
			Fail(http.StatusForbidden, "client-certificate", "a certificate of a service is required").Write(r.Context(), w)
			return
		}
		next.ServeHTTP(w, r)
	})
}
