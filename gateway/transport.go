package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const schemeH2C = "h2c"

// Transport is how a route's instances are reached. Each instance has connections of its own.
type Transport struct {
	// DialTimeout bounds the making of a connection. Default 5 s.
	DialTimeout time.Duration `json:"dial_timeout,omitempty"`
	// HandshakeTimeout bounds the TLS handshake. Default 5 s.
	HandshakeTimeout time.Duration `json:"handshake_timeout,omitempty"`
	// IdleTimeout is how long a connection that is not used is kept. Default 90 s. It should be less than what the service
	// allows, and less than the delay for which the service goes on serving while it drains: a request that meets a
	// connection that is just closing has to be tried again, and a POST cannot be.
	IdleTimeout time.Duration `json:"idle_timeout,omitempty"`
	// MaxIdle bounds the connections to an instance that are kept. Default 256. Negative: none are kept.
	MaxIdle int `json:"max_idle,omitempty"`
	// MaxConns bounds the connections to an instance; requests wait for one within the route's Timeout. Default: no bound.
	MaxConns int `json:"max_conns,omitempty"`
	// PingAfter is how long an HTTP/2 connection may be silent before it is pinged. Default 5 s. Negative disables it.
	PingAfter time.Duration `json:"ping_after,omitempty"`
	// PingTimeout is how long the answer to a ping may take; then the connection is closed. Default 5 s.
	PingTimeout time.Duration `json:"ping_timeout,omitempty"`
	// HTTP1 speaks HTTP/1.1 alone to https instances. Default: HTTP/2 where the instance offers it.
	HTTP1 bool `json:"http1,omitempty"`
	// TLS is for https instances. Default: Config.UpstreamTLS alone.
	TLS *TransportTLS `json:"tls,omitempty"`
}

// TransportTLS is how https instances are verified and what certificate they are shown. It adds to Config.UpstreamTLS.
type TransportTLS struct {
	// CAFile has the CAs in PEM that instances are verified with. Default: those of Config.UpstreamTLS, or the system's.
	//
	// All three files are read for each handshake, so that they may be replaced; while one cannot be read, what was read
	// last is used.
	CAFile string `json:"ca_file,omitempty"`
	// CertFile and KeyFile are the client certificate and its key in PEM. Default: none.
	CertFile string `json:"cert_file,omitempty"`
	KeyFile  string `json:"key_file,omitempty"`
	// ServerName is the name that certificates of instances must have. Default: the host of the upstream.
	ServerName string `json:"server_name,omitempty"`
}

// validate returns what is wrong with the settings, without a look at files.
func (t *Transport) validate() error {
	if t == nil {
		return nil
	}
	if t.DialTimeout < 0 || t.HandshakeTimeout < 0 || t.PingTimeout < 0 || t.MaxConns < 0 {
		return errors.New("want no negative dial_timeout, handshake_timeout, ping_timeout and max_conns")
	}
	if t.TLS != nil && (t.TLS.CertFile == "") != (t.TLS.KeyFile == "") {
		return errors.New("tls: cert_file and key_file belong together")
	}
	return nil
}

// checkFiles reads the files once: New and Reload refuse what cannot be used.
func (t *Transport) checkFiles() error {
	if t == nil || t.TLS == nil {
		return nil
	}
	if t.TLS.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(t.TLS.CertFile, t.TLS.KeyFile); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	if t.TLS.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(t.TLS.CAFile)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls: %s holds no certificate", t.TLS.CAFile)
	}
	return nil
}

// newTransport makes the connections of one instance. serverName is the name of an instance that is known by its
// address.
func newTransport(t *Transport, base *tls.Config, serverName string, h2c bool) *http.Transport {
	if t == nil {
		t = &Transport{}
	}
	dialer := &net.Dialer{Timeout: cmp.Or(t.DialTimeout, 5*time.Second), KeepAlive: 30 * time.Second}
	out := &http.Transport{
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      !t.HTTP1,
		DisableCompression:     true, // what the service compressed passes as it is
		DisableKeepAlives:      t.MaxIdle < 0,
		MaxIdleConnsPerHost:    max(0, cmp.Or(t.MaxIdle, 256)),
		MaxConnsPerHost:        t.MaxConns,
		IdleConnTimeout:        max(0, cmp.Or(t.IdleTimeout, 90*time.Second)),
		TLSClientConfig:        t.tlsConfig(base, serverName),
		TLSHandshakeTimeout:    cmp.Or(t.HandshakeTimeout, 5*time.Second),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		// A connection that is silent is pinged, and dropped when the ping is not answered: else every request would be sent
		// into a dead one.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  max(0, cmp.Or(t.PingAfter, 5*time.Second)),
			PingTimeout:      cmp.Or(t.PingTimeout, 5*time.Second),
			WriteByteTimeout: 10 * time.Second,
		},
	}
	if t.TLS != nil && t.TLS.CAFile != "" {
		out.DialTLSContext = t.dialTLS(dialer, out.TLSClientConfig)
	}
	switch {
	case h2c:
		out.Protocols = new(http.Protocols)
		out.Protocols.SetUnencryptedHTTP2(true)
	case t.HTTP1:
		out.Protocols = new(http.Protocols)
		out.Protocols.SetHTTP1(true)
	}
	return out
}

func (t *Transport) tlsConfig(base *tls.Config, serverName string) *tls.Config {
	cfg := base.Clone()
	if t.TLS == nil && serverName == "" {
		return cfg
	}
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.ServerName == "" {
		cfg.ServerName = serverName
	}
	if t.TLS == nil {
		return cfg
	}
	cfg.ServerName = cmp.Or(t.TLS.ServerName, cfg.ServerName)
	if t.TLS.CertFile != "" {
		pair := &certificate{certFile: t.TLS.CertFile, keyFile: t.TLS.KeyFile}
		cfg.Certificates, cfg.GetClientCertificate = nil, pair.get
	}
	return cfg
}

// dialTLS returns a function that connects, and verifies the instance with the CAs that CAFile has then.
func (t *Transport) dialTLS(
	dialer *net.Dialer,
	base *tls.Config,
) func(ctx context.Context, network, address string) (net.Conn, error) {
	roots := &authorities{file: t.TLS.CAFile}
	protocols := []string{"h2", "http/1.1"}
	if t.HTTP1 {
		protocols = protocols[1:]
	}
	timeout := cmp.Or(t.HandshakeTimeout, 5*time.Second)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		cfg := base.Clone()
		cfg.NextProtos = protocols
		if cfg.RootCAs, err = roots.get(); err == nil && cfg.ServerName == "" {
			cfg.ServerName, _, err = net.SplitHostPort(address)
		}
		if err == nil {
			conn := tls.Client(raw, cfg)
			hctx, cancel := context.WithTimeoutCause(ctx, timeout, errHandshakeTimeout)
			err = conn.HandshakeContext(hctx)
			if err != nil && errors.Is(context.Cause(hctx), errHandshakeTimeout) {
				err = errHandshakeTimeout
			}
			if cancel(); err == nil {
				return conn, nil
			}
		}
		_ = raw.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Addr: raw.RemoteAddr(), Err: err}
	}
}

// errHandshakeTimeout says that HandshakeTimeout has passed. It is a timeout to net/http, and not one of the request.
var errHandshakeTimeout = fmt.Errorf("TLS handshake: %w", os.ErrDeadlineExceeded)

// authorities is a file of CAs that may be replaced.
type authorities struct {
	file string

	mu   sync.Mutex
	pem  []byte
	pool *x509.CertPool
}

func (a *authorities) get() (*x509.CertPool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pem, err := os.ReadFile(a.file)
	if err == nil && !bytes.Equal(pem, a.pem) {
		if pool := x509.NewCertPool(); pool.AppendCertsFromPEM(pem) {
			a.pem, a.pool = pem, pool
		} else {
			err = fmt.Errorf("%s holds no certificate", a.file)
		}
	}
	if a.pool == nil {
		return nil, fmt.Errorf("gateway: authorities: %w", err)
	}
	return a.pool, nil
}

// certificate is a pair of files that may be replaced.
type certificate struct {
	certFile, keyFile string

	mu   sync.Mutex
	last *tls.Certificate
}

func (c *certificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		c.last = &pair
	case c.last == nil:
		return nil, fmt.Errorf("gateway: client certificate: %w", err)
	}
	return c.last, nil
}
