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
//   - TLS 1.2 is the least, 1.3 is preferred.
//   - The files are looked at every Config.ReloadEvery; new connections get the new certificate, open ones stay. A pair
//     that cannot be used, half-written or mismatched or expired, changes nothing, and the log says so.
//   - With a ClientCAFile, clients must show a certificate that it has signed; ClientOptional only checks those shown.
//
// NewDevCA makes a certificate authority for development and tests.
package tlsconfig
