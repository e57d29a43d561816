package platform_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/examples/shop/internal/shoptest"
)

// Keys are read by http from another machine only with Insecure.
func TestKeysFromAnotherMachine(t *testing.T) {
	for _, c := range []struct {
		url      string
		insecure bool
		ok       bool
	}{
		{"http://127.0.0.1:1/jwks.json", false, true},
		{"https://users:8000/jwks.json", false, true},
		{"http://users:8000/jwks.json", false, false},
		{"http://users:8000/jwks.json", true, true},
	} {
		g, err := platform.NewGuard("orders", platform.Tokens{JWKS: c.url, Insecure: c.insecure,
			Secret: bytes.Repeat([]byte("s"), 32)}, slog.New(slog.DiscardHandler), nil)
		if (err == nil) != c.ok {
			t.Errorf("%s, insecure %v: %v", c.url, c.insecure, err)
		}
		if err == nil {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A service that listens everywhere is reached at an address that is one.
func TestURL(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "[::]"} {
		cfg := shoptest.New(t).Config("users", "")
		cfg.Addr = host + ":0"
		s, err := platform.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if url := s.URL(); !strings.HasPrefix(url, "http://127.0.0.1:") || strings.HasSuffix(url, ":0") {
			t.Errorf("%s: %s", host, url)
		}
		s.Abandon(t.Context())
	}
}

// A client that does not wait for its answer is no failure of the service's.
func TestClientGone(t *testing.T) {
	cfg := shoptest.New(t).Config("orders", "")
	var log bytes.Buffer
	cfg.LogWriter = &log
	s, err := platform.New(t.Context(), cfg)
	if err == nil {
		for path, failure := range map[string]error{"/gone": context.Canceled, "/failed": errors.New("the disk is on fire")} {
			huma.Register(s.API, platform.Op("GET", path, "Fail", platform.Public),
				func(context.Context, *struct{}) (*struct{}, error) {
					return nil, fmt.Errorf("orders: %w", failure)
				})
		}
	}
	t.Run("service", func(t *testing.T) {
		shoptest.Run(t, s, err)
		shoptest.Call{Method: "GET", URL: s.URL() + "/gone"}.Do(t).Want(t, "a client that has gone", 503, "unavailable")
		shoptest.Call{Method: "GET", URL: s.URL() + "/failed"}.Do(t).Want(t, "a failure", 500, "internal")
	})
	if failed := strings.Count(log.String(), "a request failed"); failed != 1 {
		t.Errorf("%d failures were logged, want one:\n%s", failed, log.String())
	}
}
