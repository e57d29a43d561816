package authn_test

import (
	"slices"
	"testing"

	"github.com/sillar-go/sillar/internal/depstest"
)

// TestPackagesLinkOnlyTheirDependencies holds what importers of these packages pay.
func TestPackagesLinkOnlyTheirDependencies(t *testing.T) {
	const module = "github.com/sillar-go/sillar/"
	core := []string{
		module + "internal", module + "authn$", "github.com/golang-jwt/jwt/v5", "github.com/google/uuid",
		"github.com/cenkalti/backoff/v4", "golang.org/x/crypto", "golang.org/x/sys", "golang.org/x/text/unicode/norm",
		"golang.org/x/text/transform",
		"go.opentelemetry.io/otel$", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/baggage",
		"go.opentelemetry.io/otel/codes",
		"go.opentelemetry.io/otel/internal", "go.opentelemetry.io/otel/log", "go.opentelemetry.io/otel/metric",
		"go.opentelemetry.io/otel/propagation",
		"go.opentelemetry.io/otel/semconv", "go.opentelemetry.io/otel/trace", "go.opentelemetry.io/auto/sdk",
		"github.com/cespare/xxhash/v2", "github.com/go-logr/logr", "github.com/go-logr/stdr",
	}
	for pkg, allow := range map[string][]string{
		"authn": core, "authn/jwks": core, "authn/tlsconfig": nil, "authn/secrets": {module + "internal/secret"},
		"authn/secrets/vault": {module + "internal", module + "authn/secrets$", "github.com/google/uuid",
			"github.com/cenkalti/backoff/v4"},
		"authn/authngrpc":      slices.Concat(core, []string{"google.golang.org", "golang.org/x/net", "golang.org/x/text"}),
		"observability/health": nil,
	} {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			depstest.Check(t, module+pkg, allow...)
		})
	}
}
