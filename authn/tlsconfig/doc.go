// Package tlsconfig makes TLS configurations for servers and clients, one-sided and mutual, whose certificates may be
// replaced while connections are open.
//
//	files, err := tlsconfig.New(tlsconfig.Config{CertFile: "server.crt", KeyFile: "server.key", ClientCAFile: "ca.crt"})
//	defer files.Close()
//	server := &http.Server{TLSConfig: files.Server()}
//	err = server.ListenAndServeTLS("", "")
//
// # Guarantees
//
//   - The minimum version is TLS 1.2; 1.3 is preferred.
//   - The files are read again every Config.ReloadEvery; new connections use the new certificate, open ones stay. A
//     pair that cannot be used (half-written, mismatched, expired, not valid yet) changes nothing, and is logged.
//   - With a ClientCAFile, clients must show a certificate that it has signed; ClientOptional only checks those shown.
//
// NewDevCA makes a certificate authority for development and tests.
package tlsconfig
