package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// healthcheck asks a running service whether it is ready: for containers, which have neither a shell nor curl.
func healthcheck(o *options) *cobra.Command {
	var url string
	var timeout time.Duration
	cmd := &cobra.Command{Use: "healthcheck", Short: "Ask a running service whether it is ready, and fail when it is not",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				url = "http://127.0.0.1:" + strconv.Itoa(ports["gateway"]+max(o.portOffset, 0)) + "/ready"
			}
			ctx, stop := context.WithTimeout(cmd.Context(), timeout)
			defer stop()
			return askReady(ctx, o.secured(url), o.serviceTLS)
		}}
	cmd.Flags().StringVar(&url, "url", "", "what to ask (default: /ready of the gateway on this machine)")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "how long to wait for the answer")
	return cmd
}

// secured is the address with the scheme that a service has with --service-tls: all but the gateway have https.
func (o *options) secured(address string) string {
	rest, plain := strings.CutPrefix(address, "http://")
	host, _, _ := strings.Cut(rest, "/")
	_, port, _ := net.SplitHostPort(host)
	if !plain || o.serviceTLS == "" || port == strconv.Itoa(ports["gateway"]+max(o.portOffset, 0)) {
		return address
	}
	return "https://" + rest
}

func askReady(ctx context.Context, url, certificates string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	tr := &http.Transport{DisableKeepAlives: true} // and no proxy: the service is on this machine
	if certificates != "" {
		files, err := platform.OpenServiceTLS(certificates, slog.New(slog.DiscardHandler))
		if err != nil {
			return fmt.Errorf("healthcheck: %w", err)
		}
		defer files.Close()
		tr.TLSClientConfig = files.Client()
	}
	res, err := tr.RoundTrip(req) // a redirect does not count as healthy
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	if err := res.Body.Close(); err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("healthcheck: %s answers %s", url, res.Status)
	}
	return nil
}
