package authn_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authngrpc"
)

// verifyEverywhere sends a token through the middleware and the interceptor, and returns the user that each admits, ""
// for none. The error is an answer that neither admits nor refuses.
func verifyEverywhere(v *authn.Verifier, token string) (overHTTP, overGRPC string, err error) {
	handler := authn.Require(v)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		u, _ := authn.FromContext(r.Context())
		overHTTP = u.ID
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Authorization"] = []string{"Bearer " + token}
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	challenge := `Bearer error="invalid_token"`
	if token == "" {
		challenge = "Bearer"
	}
	if overHTTP == "" && (rec.Code != 401 || rec.Header().Get("WWW-Authenticate") != challenge) {
		return overHTTP, overGRPC, fmt.Errorf("HTTP: %d %v", rec.Code, rec.Header())
	}
	ctx := metadata.NewIncomingContext(context.Background(), metadata.MD{"authorization": {"Bearer " + token}})
	_, gerr := authngrpc.Unary(v)(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/shop.Orders/Place"},
		func(ctx context.Context, _ any) (any, error) {
			u, _ := authn.FromContext(ctx)
			overGRPC = u.ID
			return nil, nil
		})
	if overGRPC == "" && status.Code(gerr) != codes.Unauthenticated {
		return overHTTP, overGRPC, fmt.Errorf("gRPC: %v", gerr)
	}
	return overHTTP, overGRPC, nil
}
