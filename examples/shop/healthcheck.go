package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"
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
			return askReady(ctx, url)
		}}
	cmd.Flags().StringVar(&url, "url", "", "what to ask (default: /ready of the gateway on this machine)")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "how long to wait for the answer")
	return cmd
}

func askReady(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	tr := &http.Transport{DisableKeepAlives: true} // and no proxy: the service is on this machine
	res, err := tr.RoundTrip(req)                  // a redirect does not count as healthy
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
