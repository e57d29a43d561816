package authngrpc_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authngrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// noting is a health server that records its callers.
type noting struct {
	*health.Server
	seen *authn.User
}

func (n *noting) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	n.seen, _ = authn.FromContext(ctx)
	return n.Server.Check(ctx, r)
}

func (n *noting) Watch(r *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	n.seen, _ = authn.FromContext(s.Context())
	return s.Send(&healthpb.HealthCheckResponse{})
}

// brokenSet finds no key because it cannot.
type brokenSet struct{}

func (brokenSet) Keys(context.Context, string, authn.Algorithm) ([]authn.VerifyKey, error) {
	return nil, errors.New("down")
}

func serve(t *testing.T, v *authn.Verifier, opts ...authngrpc.Option) (healthpb.HealthClient, *noting) {
	lis := bufconn.Listen(1 << 16)
	srv := grpc.NewServer(grpc.UnaryInterceptor(authngrpc.Unary(v, opts...)),
		grpc.StreamInterceptor(authngrpc.Stream(v, opts...)))
	n := &noting{Server: health.NewServer()}
	healthpb.RegisterHealthServer(srv, n)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithPerRPCCredentials(authngrpc.PerRPCInsecure(func(ctx context.Context) (string, error) {
			token, _ := ctx.Value(tokenKey{}).(string)
			return token, nil
		})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); srv.Stop(); <-done })
	return healthpb.NewHealthClient(conn), n
}

type tokenKey struct{}

func TestInterceptorsVerifyUnaryCallsAndStreams(t *testing.T) {
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	i := authn.Must(authn.NewIssuer(keys, authn.NewMemoryTokens(), authn.IssuerConfig{Issuer: "x"}))
	v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "x", Logger: quiet}))
	broken := authn.Must(authn.NewVerifier(brokenSet{}, authn.VerifierConfig{Issuer: "x", Logger: quiet}))
	token := func(roles ...string) string {
		p, err := i.Issue(t.Context(), authn.Subject{ID: "u1", Roles: roles})
		if err != nil {
			t.Fatal(err)
		}
		return p.AccessToken
	}
	const check, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
	for _, c := range []struct {
		name  string
		v     *authn.Verifier
		opts  []authngrpc.Option
		token string
		code  codes.Code
	}{
		{"good", v, nil, token(), codes.OK},
		{"none", v, nil, "", codes.Unauthenticated},
		{"bad", v, nil, "x.y.z", codes.Unauthenticated},
		{"public without", v, []authngrpc.Option{authngrpc.Public(check, watch)}, "", codes.OK},
		{"public with a bad one", v, []authngrpc.Option{authngrpc.Public(check, watch)}, "x.y.z", codes.Unauthenticated},
		{"another is public", v, []authngrpc.Option{authngrpc.Public("/grpc.health.v1.Health/List")}, "",
			codes.Unauthenticated},
		{"role", v, []authngrpc.Option{authngrpc.Need(authn.AnyRole("admin"))}, token("admin"), codes.OK},
		{"no role", v, []authngrpc.Option{authngrpc.Need(authn.AnyRole("admin"))}, token("user"), codes.PermissionDenied},
		{"of the method", v, []authngrpc.Option{authngrpc.Method(check, authn.AnyRole("a")),
			authngrpc.Method(watch, authn.AnyRole("a"))}, token("user"), codes.PermissionDenied},
		{"method before all", v, []authngrpc.Option{authngrpc.Need(authn.AnyRole("admin")), authngrpc.Method(check),
			authngrpc.Method(watch)}, token("user"), codes.OK},
		{"keys out of reach", broken, nil, token(), codes.Unavailable},
	} {
		client, n := serve(t, c.v, c.opts...)
		ctx := context.WithValue(t.Context(), tokenKey{}, c.token)
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
		if status.Code(err) != c.code {
			t.Errorf("%s: unary: %v", c.name, err)
		}
		if (n.seen != nil) != (c.code == codes.OK && c.token != "") {
			t.Errorf("%s: unary: user %v", c.name, n.seen)
		}
		n.seen = nil
		s, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != c.code {
			t.Errorf("%s: stream: %v", c.name, err)
		}
		if (n.seen != nil) != (c.code == codes.OK && c.token != "") {
			t.Errorf("%s: stream: user %v", c.name, n.seen)
		}
	}
	client, _ := serve(t, v)
	two := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token(), "authorization",
		"Bearer "+token("admin"))
	if _, err := client.Check(two, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("two tokens: %v", err)
	}
	if !authngrpc.PerRPC(nil).RequireTransportSecurity() {
		t.Error("tokens go over plain connections")
	}
}
