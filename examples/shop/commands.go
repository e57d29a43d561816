package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"

	"github.com/sillar-go/sillar/examples/shop/internal/scenario"
	"github.com/sillar-go/sillar/observability/otlp"
)

func root() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:           "shop",
		Short:         "Seven services in one process, on embedded defaults",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnv(cmd.Flags())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withData(func() error { return runAll(cmd.Context(), o) })
		},
	}
	o.register(cmd.PersistentFlags())
	cmd.AddCommand(demo(o), load(), sagas(), messages(), healthcheck(o), certs(o))
	for _, b := range services {
		cmd.AddCommand(one(o, b))
	}
	return cmd
}

// withData runs fn with the given data folder, or with a temporary one.
func (o *options) withData(run func() error) (err error) {
	if o.data != "" {
		if err := os.MkdirAll(o.data, 0o700); err != nil {
			return fmt.Errorf("--data: %w", err)
		}
		return run()
	}
	if o.data, err = os.MkdirTemp("", "shop-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.data)) }()
	return run()
}

func runAll(ctx context.Context, o *options) error {
	h, err := newAllInOne(ctx, o)
	if err != nil {
		return err
	}
	secure, page := "", ""
	if h.TLSURL() != "" {
		secure = ", with TLS at " + h.TLSURL()
	}
	if h.page {
		page = "\n  open that address in a browser: it shows the services at work and lets you place orders and inject " +
			"faults\n"
	}
	fmt.Printf(`The shop is open at %[1]s%[3]s  (data and shop.log in %[2]s)
%[4]s
  users ana / ana-password, admin / admin-password; all services below the gateway:
    /users  /products  /orders  /inventory  /payments  /notifications

  try:  curl -s %[1]s/users/token -d grant_type=password -d username=ana -d password=ana-password
  or:   go run ./examples/shop demo

Ctrl-C ends it.
`, h.URL(), o.data, secure, page)
	err = h.Run(ctx)
	if err == nil {
		fmt.Println("The shop is closed.")
	}
	return err
}

func one(o *options, b build) *cobra.Command {
	cmd := &cobra.Command{
		Use:   b.name,
		Short: "Run the " + b.name + " service alone",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withData(func() error {
				ctx := cmd.Context()
				o.fillPeers()
				p, err := o.open(ctx, b.name, b.name == "gateway", "stdout") // the gateway signs no tokens and consumes no events
				if err != nil {
					return err
				}
				p.config.SpanExporters, err = otlp.FromEnv(ctx)
				if err == nil && b.name == "gateway" {
					err = o.openTLS(p)
				}
				if err != nil {
					return errors.Join(err, p.Close())
				}
				s, err := b.make(ctx, o.config(p.config, b.name))
				if err != nil {
					return errors.Join(err, p.Close())
				}
				// the broker was made before the service and reports its metrics there too
				otel.SetMeterProvider(s.Tel.MeterProvider)
				return errors.Join(s.Run(ctx), p.Close())
			})
		},
	}
	if b.name == "gateway" {
		cmd.Flags().StringVar(&o.routes, "config", "",
			"routes, as YAML: see examples/shop/gateway/routes.yaml; a new version of the file is loaded without a restart "+
				"(default: those of the shop)")
	}
	return cmd
}

func demo(o *options) *cobra.Command {
	var gatewayURL, admin, password string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play a scenario in the terminal, and fail when an invariant breaks",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := scenario.Config{Gateway: gatewayURL, Admin: admin, AdminPassword: password, Out: cmd.OutOrStdout(),
				Faults: o.faults}
			if gatewayURL != "" { // a running shop
				return scenario.Run(cmd.Context(), cfg)
			}
			return o.withData(func() error { return playDemo(cmd.Context(), o, cfg) })
		},
	}
	cmd.Flags().StringVar(&gatewayURL, "gateway", "", "play against a shop that runs already, at this address")
	cmd.Flags().StringVar(&admin, "admin", "admin", "its administrator")
	cmd.Flags().StringVar(&password, "admin-password", "admin-password", "and the password")
	return cmd
}

// playDemo starts a shop on free ports, runs the scenario and stops the shop.
func playDemo(ctx context.Context, o *options, cfg scenario.Config) error {
	o.portOffset = -1
	if o.breaker == 30*time.Second {
		o.breaker = time.Second
	}
	h, err := newAllInOne(ctx, o)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()

	cfg.Gateway = h.URL()
	cfg.Logs = func() ([]byte, error) { return os.ReadFile(filepath.Join(o.data, "shop.log")) }
	fmt.Fprintf(cfg.Out, "The shop is open at %s for a demonstration.\n", h.URL())
	err = scenario.Run(ctx, cfg)
	stop()
	err = errors.Join(err, <-ended)
	if err != nil {
		if log, rerr := os.ReadFile(filepath.Join(o.data, "shop.log")); rerr == nil {
			fmt.Fprintf(os.Stderr, "\nthe last lines of the log:\n%s\n", tail(log, 20))
		}
		return err
	}
	fmt.Fprintln(cfg.Out, "\nAll invariants hold. The shop is closed.")
	return nil
}

func tail(log []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
