package tlsconfig

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config names the files. All are PEM.
type Config struct {
	// CertFile and KeyFile are the own certificate, with its chain, and key. A client without a certificate has neither.
	CertFile, KeyFile string
	// ClientCAFile makes a server ask for client certificates that these authorities have signed.
	ClientCAFile string
	// ClientOptional also lets clients in that show no certificate.
	ClientOptional bool
	// RootCAFile is whom a client trusts. Default: the system's authorities.
	RootCAFile string
	// ServerName is whom a client expects. Default: the host that it dials.
	ServerName string
	// ReloadEvery is how often the files are looked at. Default 30 s. Negative: only by Reload.
	ReloadEvery time.Duration
	// OnReload is told of every reload that changed something or failed.
	OnReload func(err error)
	// Logger is told too. Default slog.Default().
	Logger *slog.Logger
}

// Files is a set of TLS files that is looked at again. It is safe for concurrent use.
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

// New reads the files, and begins to look at them.
func New(cfg Config) (*Files, error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("tlsconfig: CertFile and KeyFile belong together")
	}
	if cfg.ReloadEvery == 0 {
		cfg.ReloadEvery = 30 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
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

// Close ends the looking. The configurations work on with what is there.
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
			_ = f.Reload() // it has told the log
		case <-ctx.Done():
			return
		}
	}
}

// Reload looks at the files now. When they cannot be used, what is there stays, and the error says why.
func (f *Files) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.load()
	old := f.now.Load()
	if err == nil && same(l.raw, old.raw) {
		return nil
	}
	if err != nil {
		f.cfg.Logger.Error("new TLS files cannot be used, the old ones stay", "error", err)
	} else {
		f.now.Store(l)
		f.cfg.Logger.Info("TLS files reloaded", "cert", f.cfg.CertFile)
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

func (f *Files) load() (*loaded, error) {
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
			return nil, fmt.Errorf("tlsconfig: %s and %s: %w", f.cfg.CertFile, f.cfg.KeyFile, err)
		}
		if now := time.Now(); now.After(c.Leaf.NotAfter) {
			return nil, fmt.Errorf("tlsconfig: %s expired at %s", f.cfg.CertFile, c.Leaf.NotAfter)
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

// Server returns a configuration for servers, HTTP and gRPC. It needs a CertFile. Changes of the files reach it. It may be
// changed before it is used; certificates and client authorities stay those of the files.
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
		// Tickets would let a client resume that a changed ClientCAFile no longer lets in.
		c.ClientCAs, c.ClientAuth, c.SessionTicketsDisabled = l.clients, tls.RequireAndVerifyClientCert, true
		if f.cfg.ClientOptional {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
}

// Client returns a configuration for clients. A changed certificate is shown from the next connection on; a changed
// RootCAFile reaches configurations that are made after it.
func (f *Files) Client() *tls.Config {
	l := f.now.Load()
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
