package authngrpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/authn"
)

// Option tunes the interceptors.
type Option func(*guard)

type guard struct {
	v       *authn.Verifier
	public  map[string]bool
	all     []authn.Requirement
	methods map[string][]authn.Requirement
}

// Public admits callers without a token to the named methods, such as "/grpc.health.v1.Health/Check". A token that is
// sent is verified nevertheless, and a bad one refused.
func Public(fullMethods ...string) Option {
	return func(g *guard) {
		for _, m := range fullMethods {
			g.public[m] = true
		}
	}
}

// Need sets the requirements of every method that is not Public and has no Method of its own.
func Need(requirements ...authn.Requirement) Option {
	return func(g *guard) { g.all = append(g.all, requirements...) }
}

// Method sets the requirements of one method.
func Method(fullMethod string, requirements ...authn.Requirement) Option {
	return func(g *guard) { g.methods[fullMethod] = append(g.methods[fullMethod], requirements...) }
}

func newGuard(v *authn.Verifier, opts []Option) *guard {
	if v == nil {
		panic("authngrpc: a Verifier is needed")
	}
	g := &guard{v: v, public: map[string]bool{}, methods: map[string][]authn.Requirement{}}
	for _, o := range opts {
		o(g)
	}
	return g
}

// Unary guards unary calls.
func Unary(v *authn.Verifier, opts ...Option) grpc.UnaryServerInterceptor {
	g := newGuard(v, opts)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := g.check(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// Stream guards streaming calls: once, when the stream begins. A stream may outlive its token.
func Stream(v *authn.Verifier, opts ...Option) grpc.StreamServerInterceptor {
	g := newGuard(v, opts)
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := g.check(ss.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return handler(srv, &stream{ss, ctx})
	}
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

func (g *guard) check(ctx context.Context, method string) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	requirements, own := g.methods[method]
	if !own {
		requirements = g.all
	}
	if g.public[method] {
		requirements = nil
	}
	u, err := authn.Check(ctx, g.v, md.Get("authorization"), requirements...)
	if g.public[method] && errors.Is(err, authn.ErrNoToken) {
		return ctx, nil
	}
	switch {
	case err == nil:
		return authn.WithUser(ctx, u), nil
	case errors.Is(err, authn.ErrForbidden):
		return nil, status.Error(codes.PermissionDenied, "the caller may not do this")
	case errors.Is(err, authn.ErrUnavailable):
		return nil, status.Error(codes.Unavailable, "tokens cannot be verified now")
	case errors.Is(err, authn.ErrToken), errors.Is(err, authn.ErrNoToken):
		return nil, status.Error(codes.Unauthenticated, "a valid bearer token is needed")
	}
	return nil, status.Error(codes.Internal, "internal error") // a Requirement failed
}

// PerRPC gives every call of a connection the token that the function returns. It refuses to send it over a connection
// that is not encrypted.
func PerRPC(token func(ctx context.Context) (string, error)) credentials.PerRPCCredentials {
	return perRPC{token, true}
}

// PerRPCInsecure is PerRPC also for connections that are not encrypted: between processes of one machine, or where a
// mesh encrypts.
func PerRPCInsecure(token func(ctx context.Context) (string, error)) credentials.PerRPCCredentials {
	return perRPC{token, false}
}

type perRPC struct {
	token  func(ctx context.Context) (string, error)
	secure bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials. An empty token sends none.
func (p perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	t, err := p.token(ctx)
	if err != nil {
		return nil, fmt.Errorf("authngrpc: get the token: %w", err)
	}
	if t == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + t}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (p perRPC) RequireTransportSecurity() bool { return p.secure }
