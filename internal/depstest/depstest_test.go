package depstest_test

import (
	"slices"
	"testing"

	"github.com/sillar-go/sillar/internal/depstest"
)

const module = "github.com/sillar-go/sillar/"

// otelAPI is OpenTelemetry without its SDK, and what that links.
var otelAPI = []string{
	"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/baggage", "go.opentelemetry.io/otel/codes",
	"go.opentelemetry.io/otel/internal", "go.opentelemetry.io/otel/log", "go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/propagation",
	"go.opentelemetry.io/otel/semconv", "go.opentelemetry.io/otel/trace", "go.opentelemetry.io/auto/sdk",
	"github.com/cespare/xxhash/v2", "github.com/go-logr/logr", "github.com/go-logr/stdr",
}

// otel is the API with its global package, whose own path is a prefix of the SDK's and so is matched by itself.
var otel = append([]string{"go.opentelemetry.io/otel$"}, otelAPI...)

// shared are the parts that every package may use.
var shared = []string{
	module + "internal/backoff", module + "internal/correlation", module + "internal/errclass",
	module + "internal/groupcommit",
	module + "internal/httpcheck", module + "internal/id", module + "internal/jsoncheck",
	module + "internal/problem",
	module + "internal/secret", "github.com/google/uuid", "github.com/cenkalti/backoff/v4",
}

var pgx = []string{
	"github.com/jackc/pgx/v5", "github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile",
	"github.com/jackc/puddle/v2",
	"golang.org/x/sync", "golang.org/x/text",
	module + "internal/pglisten",
}

var grpc = []string{
	"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc",
	"golang.org/x/net", "golang.org/x/sys", "golang.org/x/text",
}

var mongo = []string{
	"go.mongodb.org/mongo-driver/v2", "github.com/klauspost/compress", "github.com/xdg-go/scram",
	"github.com/xdg-go/stringprep",
	"github.com/youmark/pkcs8", "golang.org/x/crypto", "golang.org/x/sync", "golang.org/x/text",
	module + "internal/changestream",
}

// nats is its client; the server, which tests run in their process, is in no program.
var nats = []string{
	"github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/nats-io/nuid", "github.com/klauspost/compress",
	"golang.org/x/crypto", "golang.org/x/sys/cpu",
}

// franz is the client of Kafka; kfake, which tests run in their process, is in no program.
var franz = []string{
	"github.com/twmb/franz-go", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4",
}

var jwt = []string{
	"github.com/golang-jwt/jwt/v5", "golang.org/x/crypto", "golang.org/x/sys", "golang.org/x/text/unicode/norm",
	"golang.org/x/text/transform",
}

// prometheus is what a program pays for metrics: the SDK, the exporter and Prometheus' own client.
var prometheus = []string{
	"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters/prometheus", "github.com/prometheus",
	"github.com/beorn7/perks",
	"github.com/munnerz/goautoneg", "golang.org/x/sys", "google.golang.org/protobuf",
}

var breaker = []string{"github.com/sony/gobreaker/v2", "github.com/cenkalti/backoff/v4", module + "internal/backoff"}

var allowedModules = map[string][]string{
	"breaker":             breaker,
	"breaker/breakergrpc": slices.Concat(breaker, under("breaker"), otel, shared, grpc),
	"breaker/breakerotel": slices.Concat(breaker, under("breaker"), otel),
	"breaker/breakerhttp": slices.Concat(breaker, under("breaker"), otel, shared),
	"gateway":             slices.Concat(breaker, under("breaker"), otel, shared),
	"gateway/gatewayyaml": slices.Concat(breaker, under("breaker", "gateway"), otel, shared,
		[]string{"github.com/goccy/go-yaml"}),
	"gateway/redislimit": slices.Concat(breaker, under("breaker", "gateway"), otel, shared,
		[]string{"github.com/redis/go-redis/v9", "github.com/cespare/xxhash/v2", "go.uber.org/atomic",
			"golang.org/x/sys/cpu"}),

	"saga":           slices.Concat(otel, shared, under("saga")),
	"saga/sagamem":   slices.Concat(otel, shared, under("saga")),
	"saga/sagasql":   slices.Concat(otel, shared, pgx, under("saga", "repository/sqldb")),
	"saga/sagamongo": slices.Concat(otel, shared, mongo, under("saga")),
	"saga/barrier":   slices.Concat(otel, shared, pgx, under("repository/sqldb")),
	"saga/sagatest":  slices.Concat(otel, shared, under("saga", "saga/sagamem"), []string{"github.com/google/go-cmp"}),

	"messaging":             slices.Concat(otel, shared, []string{module + "messaging/internal"}),
	"messaging/driver":      slices.Concat(otel, shared, under("messaging")),
	"messaging/cqrs":        slices.Concat(otel, shared),
	"messaging/cqrs/remote": slices.Concat(otel, shared, under("messaging", "messaging/cqrs")),
	"messaging/protobuf": slices.Concat(otel, shared, under("messaging"),
		[]string{"google.golang.org/protobuf"}),
	"messaging/memory": slices.Concat(otel, shared, under("messaging")),
	"messaging/rabbitmq": slices.Concat(otel, shared, under("messaging"),
		[]string{"github.com/rabbitmq/amqp091-go"}),
	"messaging/jetstream": slices.Concat(otel, shared, nats, under("messaging")),
	"messaging/kafka":     slices.Concat(otel, shared, franz, under("messaging")),
	"messaging/outbox":    slices.Concat(otel, shared, under("messaging")),
	"messaging/outbox/sqloutbox": slices.Concat(otel, shared, pgx, under("messaging", "messaging/outbox",
		"repository/sqldb")),
	"messaging/outbox/mongooutbox": slices.Concat(otel, shared, mongo, under("messaging", "messaging/outbox",
		"repository")),
	"messaging/inbox/sqlinbox":   slices.Concat(otel, shared, pgx, under("messaging", "repository/sqldb")),
	"messaging/inbox/mongoinbox": slices.Concat(otel, shared, mongo, under("messaging", "repository")),

	"repository":                      slices.Concat(shared, under("repository")),
	"repository/driver":               shared,
	"repository/memrepo":              slices.Concat(shared, under("repository")),
	"repository/sqldb":                slices.Concat(otel, shared, pgx),
	"repository/sqlrepo":              slices.Concat(otel, shared, pgx, under("repository", "repository/sqldb")),
	"repository/mongorepo/mongootel":  slices.Concat(otel, mongo),
	"repository/mongorepo":            slices.Concat(shared, mongo, under("repository")),
	"repository/eventstore":           slices.Concat(otel, shared, under("repository")),
	"repository/eventstore/memevents": slices.Concat(otel, shared, under("repository", "repository/eventstore")),
	"repository/eventstore/sqlevents": slices.Concat(otel, shared, pgx, under("repository", "repository/eventstore",
		"repository/sqldb")),
	"repository/eventstore/mongoevents": slices.Concat(otel, shared, mongo, under("repository", "repository/eventstore")),

	"authn/sqltokens":    slices.Concat(otel, shared, pgx, jwt, under("authn", "repository/sqldb")),
	"authn/sqlkeys":      slices.Concat(otel, shared, pgx, jwt, under("authn", "repository/sqldb")),
	"authn/mongokeys":    slices.Concat(otel, shared, mongo, jwt, under("authn")),
	"authn/sqlapikeys":   slices.Concat(otel, shared, pgx, jwt, under("authn", "repository/sqldb")),
	"authn/mongoapikeys": slices.Concat(otel, shared, mongo, jwt, under("authn")),
	"authn/tokensource":  nil,
	"authn/issuers":      slices.Concat(otel, shared, jwt, under("authn")),
	"authn/mongotokens":  slices.Concat(otel, shared, mongo, jwt, under("authn")),
	"authn/vaultkeys":    slices.Concat(otel, shared, jwt, under("authn", "authn/secrets", "authn/secrets/vault")),

	"observability": slices.Concat(otel, shared, prometheus),
	"observability/grpcotel": slices.Concat(otel, shared, prometheus, grpc, under("observability"),
		[]string{"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"}),
}

// TestPackagesLinkOnlyWhatTheTableAllows is the table of what each package may link.
func TestPackagesLinkOnlyWhatTheTableAllows(t *testing.T) {
	for pkg, allow := range allowedModules {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			depstest.Check(t, module+pkg, allow...)
		})
	}
}

// under are packages of this module, with what is internal to them and what their adapters are made of.
func under(paths ...string) (out []string) {
	for _, p := range paths {
		out = append(out, module+p+"$", module+p+"/driver$", module+p+"/internal")
	}
	return out
}

// TestCheckFindsAForbiddenDependency shows that the check can fail.
func TestCheckFindsAForbiddenDependency(t *testing.T) {
	got := depstest.Outside(t, module+"breaker", "github.com/cenkalti/backoff/v4", module+"internal/backoff")
	if !slices.Equal(got, []string{"github.com/sony/gobreaker/v2"}) {
		t.Fatalf("outside: %v, want gobreaker alone", got)
	}
	if got := depstest.Outside(t, module+"messaging", slices.Concat(otelAPI, shared,
		[]string{module + "messaging/internal"})...); !slices.Equal(got,
		[]string{"go.opentelemetry.io/otel"}) {
		t.Fatalf("outside: %v, want otel alone", got)
	}
}
