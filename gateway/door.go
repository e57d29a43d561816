package gateway

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// Door is an http.Server whose listeners are guarded: see Guard. Requests that are refused before any handler sees them,
// malformed or ambiguous ones, are told to ErrorLog, or else to package log's standard logger: one line a second at most,
// with nothing of the request.
type Door struct {
	*http.Server
}

// Server returns a server for h with limits that are safe for a door to the world: a slow header, a large header
// and an idle connection end. It speaks HTTP/1.1 and HTTP/2, the latter without TLS too, for gRPC. Bodies have no limit
// of time, for streams have none: Route.MaxBody and Route.TotalTimeout bound them.
func Server(addr string, h http.Handler) *Door {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &Door{&http.Server{
		Addr: addr, Handler: h, Protocols: p,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}}
}

// Serve is http.Server.Serve over a guarded l.
func (d *Door) Serve(l net.Listener) error {
	return d.Server.Serve(newGuard(l, &refusals{log: d.ErrorLog}))
}

// ListenAndServe is that of http.Server, guarded.
func (d *Door) ListenAndServe() error {
	l, err := d.listen(":http")
	if err != nil {
		return err
	}
	return d.Serve(l)
}

// ServeTLS is that of http.Server, guarded.
func (d *Door) ServeTLS(l net.Listener, certFile, keyFile string) error {
	cfg, err := d.tlsConfig(certFile, keyFile)
	if err != nil {
		_ = l.Close()
		return err
	}
	return d.Serve(tls.NewListener(l, cfg))
}

// ListenAndServeTLS is that of http.Server, guarded.
func (d *Door) ListenAndServeTLS(certFile, keyFile string) error {
	l, err := d.listen(":https")
	if err != nil {
		return err
	}
	return d.ServeTLS(l, certFile, keyFile)
}

func (d *Door) listen(standard string) (net.Listener, error) {
	addr := d.Addr
	if addr == "" {
		addr = standard
	}
	return net.Listen("tcp", addr)
}

// tlsConfig is TLSConfig with what a server needs.
func (d *Door) tlsConfig(certFile, keyFile string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.TLSConfig != nil {
		cfg = d.TLSConfig.Clone()
	}
	cfg.NextProtos = slices.Clone(cfg.NextProtos)
	for _, p := range []struct {
		name   string
		spoken bool
	}{{"h2", d.Protocols == nil || d.Protocols.HTTP2()}, {"http/1.1", d.Protocols == nil || d.Protocols.HTTP1()}} {
		if p.spoken && !slices.Contains(cfg.NextProtos, p.name) {
			cfg.NextProtos = append(cfg.NextProtos, p.name)
		}
	}
	if certFile != "" || keyFile != "" || len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("gateway: certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}
