package vault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// tlsFromEnvironment reads the variables of Vault's own client that concern TLS.
func tlsFromEnvironment() (*tls.Config, error) {
	for _, name := range []string{"VAULT_SKIP_VERIFY", "VAULT_CAPATH"} {
		if v := os.Getenv(name); v != "" && v != "false" && v != "0" {
			return nil, fmt.Errorf("vault: %s is set and not supported; use VAULT_CACERT or Config.Transport", name)
		}
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: os.Getenv("VAULT_TLS_SERVER_NAME")}
	pem := []byte(os.Getenv("VAULT_CACERT_BYTES"))
	if name := os.Getenv("VAULT_CACERT"); name != "" && len(pem) == 0 {
		var err error
		if pem, err = os.ReadFile(name); err != nil { //nolint:gosec // the operator names the file
			return nil, fmt.Errorf("vault: read VAULT_CACERT: %w", err)
		}
	}
	if len(pem) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("vault: VAULT_CACERT or VAULT_CACERT_BYTES contains no certificate")
		}
	}
	certFile, keyFile := os.Getenv("VAULT_CLIENT_CERT"), os.Getenv("VAULT_CLIENT_KEY")
	if certFile == "" && keyFile == "" {
		return c, nil
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("vault: read VAULT_CLIENT_CERT and VAULT_CLIENT_KEY: %w", err)
	}
	c.Certificates = []tls.Certificate{cert}
	return c, nil
}
