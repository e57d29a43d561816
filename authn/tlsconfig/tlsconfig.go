package tlsconfig

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config names the files. All are PEM.
type Config struct {
	// CertFile and KeyFile are the certificate of this program, with its chain, and its key. A client without a
	// certificate has neither.
	CertFile, KeyFile string
	// ClientCAFile makes a server ask for client certificates that these authorities have signed.
	ClientCAFile string
	// ClientOptional also admits clients that present no certificate.
	ClientOptional bool
	// RootCAFile holds the CAs with which a client verifies servers. Default: the CAs of the system.
	RootCAFile string
	// ServerName is the name that a client verifies in the certificate of the server. Default: the host that it dials.
	ServerName string
	// ReloadEvery is the interval at which the files are read again. Default 30 s. Negative: only by Reload.
	ReloadEvery time.Duration
	// OnReload is called after every reload that changed something or failed.
	OnReload func(err error)
	// Logger logs the same. Default slog.Default().
	Logger *slog.Logger
}

// Files is a set of TLS files that is reloaded. It is safe for concurrent use.
type Files struct {
	cfg   Config
	mu    sync.Mutex // held while loading
	now   atomic.Pointer[loaded]
	close context.CancelFunc
	wg    sync.WaitGroup
}

// loaded is one consistent state of the files.
type loaded struct {
	raw     [4][]byte // contents, to see changes
	cert    *tls.Certificate
	clients *x509.CertPool
	roots   *x509.CertPool
}

// New reads the files and starts to watch them.
func New(cfg Config) (*Files, error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("tlsconfig: CertFile and KeyFile belong together")
	}
	cfg.ReloadEvery = cmp.Or(cfg.ReloadEvery, 30*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	ctx, cancel := context.WithCancel(context.Background())
	f := &Files{cfg: cfg, close: cancel}
	l, err := f.load()
	if err != nil {
		cancel()
		return nil, err
	}
	f.now.Store(l)
	if cfg.ReloadEvery > 0 {
		f.wg.Go(func() { f.loop(ctx) })
	}
	return f, nil
}

// Must returns f or panics with err.
func Must(f *Files, err error) *Files {
	if err != nil {
		panic(err)
	}
	return f
}

// Close stops watching. The configurations continue to work with what was read last.
func (f *Files) Close() error {
	f.close()
	f.wg.Wait()
	return nil
}

func (f *Files) loop(ctx context.Context) {
	t := time.NewTicker(f.cfg.ReloadEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_ = f.Reload() // it logs its error
		case <-ctx.Done():
			return
		}
	}
}

// Reload reads the files now. When they cannot be used, those that were read before stay in use, and the error says
// why.
func (f *Files) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.load()
	old := f.now.Load()
	if err == nil && same(l.raw, old.raw) {
		return nil
	}
	if err != nil {
		f.cfg.Logger.Error("tlsconfig: new files cannot be used, the old ones stay in use", "error", err)
	} else {
		f.now.Store(l)
		f.cfg.Logger.Info("tlsconfig: files reloaded", "cert", f.cfg.CertFile)
	}
	if f.cfg.OnReload != nil {
		f.cfg.OnReload(err)
	}
	return err
}

func same(a, b [4][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// A pair of certificate and key that do not match is read again before it is an error: they may just be replaced, one
// after the other.
const (
	pairAttempts = 10
	pairPause    = 50 * time.Millisecond
)

func (f *Files) load() (*loaded, error) {
	l, err := f.read()
	for n := 1; n < pairAttempts && errors.Is(err, errPair); n++ {
		time.Sleep(pairPause/2 + rand.N(pairPause)) // never in step with what writes the files
		l, err = f.read()
	}
	return l, err
}

// errPair is matched when a certificate and a key cannot be used together.
var errPair = errors.New("no usable pair of certificate and key")

func (f *Files) read() (*loaded, error) {
	l := &loaded{}
	for i, name := range []string{f.cfg.CertFile, f.cfg.KeyFile, f.cfg.ClientCAFile, f.cfg.RootCAFile} {
		if name == "" {
			continue
		}
		var err error
		if l.raw[i], err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("tlsconfig: %w", err)
		}
	}
	if f.cfg.CertFile != "" {
		c, err := tls.X509KeyPair(l.raw[0], l.raw[1])
		if err != nil {
			return nil, fmt.Errorf("tlsconfig: %s and %s: %w: %w", f.cfg.CertFile, f.cfg.KeyFile, errPair, err)
		}
		switch now := time.Now(); {
		case now.After(c.Leaf.NotAfter):
			return nil, fmt.Errorf("tlsconfig: %s expired at %s", f.cfg.CertFile, c.Leaf.NotAfter)
		case now.Before(c.Leaf.NotBefore):
			return nil, fmt.Errorf("tlsconfig: %s is valid only from %s", f.cfg.CertFile, c.Leaf.NotBefore)
		}
		l.cert = &c
	}
	var err error
	if l.clients, err = pool(f.cfg.ClientCAFile, l.raw[2]); err != nil {
		return nil, err
	}
	l.roots, err = pool(f.cfg.RootCAFile, l.raw[3])
	return l, err
}

func pool(name string, pem []byte) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tlsconfig: %s holds no certificate", name)
	}
	return p, nil
}

// Server returns a configuration for servers, HTTP and gRPC. It needs a CertFile. Changes of the files reach it. It may
// be changed before it is used; certificates and client authorities stay those of the files.
func (f *Files) Server() *tls.Config {
	base := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	f.serve(base, f.now.Load())
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone() // with what the program has changed
		c.GetConfigForClient = nil
		f.serve(c, f.now.Load())
		return c, nil
	}
	return base
}

// serve puts the files' content into a server's configuration.
func (f *Files) serve(c *tls.Config, l *loaded) {
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if l.cert == nil {
			return nil, errors.New("tlsconfig: a server needs a CertFile")
		}
		return l.cert, nil
	}
	if l.clients != nil {
		// With tickets a client could resume that a changed ClientCAFile does not admit any more.
		c.ClientCAs, c.ClientAuth, c.SessionTicketsDisabled = l.clients, tls.RequireAndVerifyClientCert, true
		if f.cfg.ClientOptional {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
}

// Client returns a configuration for clients. Each new connection presents the certificate of the files as they are
// then. With Config.ServerName, it also verifies the server with the RootCAFile as it is then. Without, crypto/tls does
// not say which host is dialed, and the RootCAFile stays the one at the time of this call: HTTP clients use Transport
// instead.
func (f *Files) Client() *tls.Config {
	l := f.now.Load()
	c := f.client(l)
	if f.cfg.ServerName != "" && l.roots != nil {
		c.InsecureSkipVerify = true // verified below, with the current roots
		c.VerifyConnection = f.verifyServer
	}
	return c
}

func (f *Files) client(l *loaded) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: l.roots, ServerName: f.cfg.ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := f.now.Load().cert; c != nil {
				return c, nil
			}
			return &tls.Certificate{}, nil // none
		},
	}
}

// verifyServer does what crypto/tls does without InsecureSkipVerify.
func (f *Files) verifyServer(state tls.ConnectionState) error {
	options := x509.VerifyOptions{Roots: f.now.Load().roots, DNSName: f.cfg.ServerName, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := state.PeerCertificates[0].Verify(options); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}

// Transport returns a transport for HTTP clients, HTTP/1.1 and HTTP/2, with the settings of http.DefaultTransport. Each
// new connection uses the files as they are then, the RootCAFile included. The caller may change it before its first
// use.
func (f *Files) Transport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialTLSContext:        f.dial,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second,
			PingTimeout:     5 * time.Second,
		}, // a dead connection is dropped
	}
}

// dialTimeout bounds the opening of a connection, its handshake included.
const dialTimeout = 30 * time.Second

func (f *Files) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c := f.client(f.now.Load())
	c.NextProtos = []string{"h2", "http/1.1"}
	d := tls.Dialer{Config: c} // which verifies the host of the address where ServerName is empty
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("tlsconfig: dial %s: %w", address, err)
	}
	return conn, nil
}
