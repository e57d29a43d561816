package authngrpc_test

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authngrpc"
)

func Example() {
	keys := authn.Must(authn.NewKeySet(authn.NewMemoryKeys(), authn.KeyConfig{Logger: quiet}))
	v := authn.Must(authn.NewVerifier(keys, authn.VerifierConfig{Issuer: "https://shop"}))
	opts := []authngrpc.Option{
		authngrpc.Public(healthpb.Health_Check_FullMethodName),
		authngrpc.Method("/shop.Products/Delete", authn.AnyRole("admin")),
	}
	srv := grpc.NewServer(grpc.UnaryInterceptor(authngrpc.Unary(v, opts...)),
		grpc.StreamInterceptor(authngrpc.Stream(v, opts...)))
	defer srv.Stop()

	client := grpc.WithPerRPCCredentials(authngrpc.PerRPC(func(context.Context) (string, error) {
		return "the access token", nil
	}))
	fmt.Println(client != nil)
	// Output: true
}
