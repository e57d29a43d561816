package gateway

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// Server is an http.Server whose listeners are guarded: see Guard. Requests that are refused before any handler sees
// them, malformed or ambiguous ones, are logged by ErrorLog, or else by package log's standard logger: one line a
// second at most, with nothing of the request.
type Server struct {
	*http.Server
}

// NewServer returns a server for h with limits that are safe on the internet: a slow header, a large header and an idle
// connection end. It speaks HTTP/1.1 and HTTP/2, the latter without TLS too, for gRPC. Bodies have no limit of time,
// for streams have none: Route.MaxBody and Route.TotalTimeout bound them.
func NewServer(addr string, h http.Handler) *Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &Server{&http.Server{
		Addr: addr, Handler: h, Protocols: p,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}}
}

// Serve is http.Server.Serve over a guarded l.
func (s *Server) Serve(l net.Listener) error {
	return s.Server.Serve(newGuard(l, &rejectionLog{log: s.ErrorLog}))
}

// ListenAndServe is that of http.Server, guarded.
func (s *Server) ListenAndServe() error {
	l, err := s.listen(":http")
	if err != nil {
		return err
	}
	return s.Serve(l)
}

// ServeTLS is that of http.Server, guarded.
func (s *Server) ServeTLS(l net.Listener, certFile, keyFile string) error {
	cfg, err := s.tlsConfig(certFile, keyFile)
	if err != nil {
		_ = l.Close()
		return err
	}
	return s.Serve(tls.NewListener(l, cfg))
}

// ListenAndServeTLS is that of http.Server, guarded.
func (s *Server) ListenAndServeTLS(certFile, keyFile string) error {
	l, err := s.listen(":https")
	if err != nil {
		return err
	}
	return s.ServeTLS(l, certFile, keyFile)
}

func (s *Server) listen(standard string) (net.Listener, error) {
	addr := s.Addr
	if addr == "" {
		addr = standard
	}
	return net.Listen("tcp", addr)
}

// tlsConfig is TLSConfig with what a server needs.
func (s *Server) tlsConfig(certFile, keyFile string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.TLSConfig != nil {
		cfg = s.TLSConfig.Clone()
	}
	cfg.NextProtos = slices.Clone(cfg.NextProtos)
	for _, p := range []struct {
		name   string
		spoken bool
	}{{"h2", s.Protocols == nil || s.Protocols.HTTP2()}, {"http/1.1", s.Protocols == nil || s.Protocols.HTTP1()}} {
		if p.spoken && !slices.Contains(cfg.NextProtos, p.name) {
			cfg.NextProtos = append(cfg.NextProtos, p.name)
		}
	}
	if certFile != "" || keyFile != "" ||
		len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("gateway: certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}
