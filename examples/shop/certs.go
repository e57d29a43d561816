package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sillar-go/sillar/authn/tlsconfig"
	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// certsFor is how long certificates of the development authority are valid.
const certsFor = 90 * 24 * time.Hour

// certs returns the command that writes certificates for development.
func certs(o *options) *cobra.Command {
	var hosts []string
	var between bool
	cmd := &cobra.Command{
		Use: "certs [FOLDER]",
		Short: "Write the certificates of a development authority: for the gateway, and for a client (default: to tls in " +
			"--data, or to data/tls)",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := filepath.Join(o.data, "tls")
			switch {
			case len(args) == 1:
				dir = args[0]
			case o.data == "":
				dir = filepath.Join("data", "tls")
			}
			if between {
				if err := writeServiceCerts(dir); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s holds a folder for each service, for --service-tls.\n", dir)
				return err
			}
			if err := writeCerts(dir, hosts); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(),
				`%[1]s holds a new authority for development, ca.crt, and what it has signed:
  gateway.crt and gateway.key for %[2]q
  client.crt and client.key for clients, where --tls-client-ca asks for them
The authority's own key is not kept: when these expire, in %[3]d days, write new ones.

  go run ./examples/shop --tls-cert %[1]s/gateway.crt --tls-key %[1]s/gateway.key
  curl --cacert %[1]s/ca.crt https://localhost:8443/health
`, dir, hosts, int(certsFor.Hours()/24))
			return err
		},
	}
	cmd.Flags().BoolVar(&between, "services", false,
		"write a folder for each service instead, with tls.crt, tls.key and ca.crt: for --service-tls")
	cmd.Flags().StringSliceVar(&hosts, "host", []string{"localhost", "127.0.0.1", "::1"},
		"names and addresses of the gateway")
	return cmd
}

func writeCerts(dir string, hosts []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	ca, err := tlsconfig.NewDevCA("Sillar shop, development only")
	if err != nil {
		return err
	}
	if err := ca.WriteFiles(dir, "gateway", certsFor, hosts...); err != nil {
		return err
	}
	return ca.WriteFiles(dir, "client", certsFor, "shop-client")
}

// writeServiceCerts writes a folder for each service, all of one authority: for its name in compose and Kubernetes, and
// for this machine.
func writeServiceCerts(dir string) error {
	ca, err := tlsconfig.NewDevCA("Sillar shop, services, development only")
	if err != nil {
		return err
	}
	for _, s := range services {
		if err := writeServiceCert(ca, filepath.Join(dir, s.name), s.name); err != nil {
			return fmt.Errorf("certs: %w", err)
		}
	}
	return nil
}

func writeServiceCert(ca *tlsconfig.DevCA, dir, name string) error {
	cert, key, err := ca.Issue(certsFor, name, "shop-"+name, "localhost", "127.0.0.1", "::1")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, platform.CAFile), ca.CertPEM(), 0o644), //nolint:gosec // certificates are public
		os.WriteFile(filepath.Join(dir, platform.CertFile), cert, 0o644),       //nolint:gosec // certificates are public
		os.WriteFile(filepath.Join(dir, platform.KeyFile), key, 0o600),
	)
}

// openTLS loads the certificate of the gateway and reloads it when the file changes.
func (o *options) openTLS(p *parts) error {
	cfg := tlsconfig.Config{CertFile: o.tlsCert, KeyFile: o.tlsKey, ClientCAFile: o.tlsClientCA, Logger: p.log}
	switch {
	case o.tlsDev && o.tlsCert != "":
		return errors.New("--tls-dev makes a certificate of its own: leave out --tls-cert and --tls-key")
	case o.tlsDev:
		dir := filepath.Join(o.data, "tls")
		if err := writeCerts(dir, []string{"localhost", "127.0.0.1", "::1"}); err != nil {
			return err
		}
		cfg.CertFile, cfg.KeyFile = filepath.Join(dir, "gateway.crt"), filepath.Join(dir, "gateway.key")
	case o.tlsCert == "" && o.tlsKey == "":
		if o.tlsClientCA != "" {
			return errors.New("--tls-client-ca needs --tls-cert and --tls-key")
		}
		return nil
	}
	files, err := tlsconfig.New(cfg)
	if err != nil {
		return err
	}
	p.close = append(p.close, files.Close)
	p.config.TLS = files.Server()
	return nil
}
