package breakergrpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakergrpc"
)

func ExampleMethodKey() {
	g := breakergrpc.Must(breakergrpc.New(breakergrpc.Config{Key: breakergrpc.MethodKey}))
	conn, err := grpc.NewClient("users:9000", append(g.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Println(g.BreakerOf(context.Background(), conn.Target(), "/shop.Users/Get").Name())
	// Output: grpc/users:9000 /shop.Users/Get
}

// Failures of one key open its breaker, of unary calls and streams, and not that of another.
func TestKeysHaveBreakersOfTheirOwn(t *testing.T) {
	tenant := func(ctx context.Context, name string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "x-tenant-id", name)
	}
	ctx := t.Context()
	type call struct {
		ctx    context.Context
		method string
	}
	for name, c := range map[string]struct {
		key               breakergrpc.KeyFunc
		fails, same, none call
		named             string
	}{
		"method": {breakergrpc.MethodKey, call{ctx, "/a.A/One"}, call{tenant(ctx, "t1"), "/a.A/One"},
			call{ctx, "/a.A/Two"}, "target /a.A/One"},
		"service": {breakergrpc.ServiceKey, call{ctx, "/a.A/One"}, call{ctx, "/a.A/Two"}, call{ctx, "/a.B/One"},
			"target a.A"},
		"tenant": {breakergrpc.MetadataKey("X-Tenant-ID"), call{tenant(ctx, "t1"), "/a.A/One"},
			call{tenant(ctx, "t1"), "/a.A/Two"}, call{tenant(ctx, "t2"), "/a.A/One"}, "target t1"},
		"no tenant": {breakergrpc.MetadataKey("X-Tenant-ID"), call{ctx, "/a.A/One"}, call{ctx, "/a.A/Two"},
			call{tenant(ctx, "t2"), "/a.A/One"}, "target"},
		"long": {breakergrpc.MetadataKey("X-Tenant-ID"), call{tenant(ctx, strings.Repeat("é", 5000)), "/a.A/One"},
			call{tenant(ctx, strings.Repeat("é", 5000)), "/a.A/One"},
			call{tenant(ctx, strings.Repeat("é", 5000)+"2"), "/a.A/One"}, "?"},
	} {
		t.Run(name, func(t *testing.T) {
			g := breakergrpc.Must(breakergrpc.New(breakergrpc.Config{Key: c.key, Breaker: breaker.Config{Failures: 2}}))
			conn, err := grpc.NewClient("target", grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fail := true
			answer := func() error {
				if fail {
					return status.Error(codes.Unavailable, "down")
				}
				return nil
			}
			unary := func(k call) error {
				return g.Unary(k.ctx, k.method, nil, nil, conn, func(context.Context, string, any, any, *grpc.ClientConn,
					...grpc.CallOption) error {
					return answer()
				})
			}
			stream := func(k call) error {
				_, err := g.Stream(k.ctx, &grpc.StreamDesc{}, conn, k.method, func(context.Context, *grpc.StreamDesc,
					*grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
					return nil, status.Error(codes.Unavailable, "down")
				})
				return err
			}
			_, _ = unary(c.fails), stream(c.fails)
			fail = false
			if err := unary(c.same); !breaker.IsRejection(err) {
				t.Errorf("the same key: %v, want a rejection", err)
			}
			if err := unary(c.none); err != nil {
				t.Errorf("another key: %v", err)
			}
			b := g.BreakerOf(c.fails.ctx, "target", c.fails.method)
			if b.State() != breaker.Open || b.Name() != "grpc/"+c.named && c.named != "?" || len(b.Name()) > 200 {
				t.Errorf("%q is %s, want grpc/%s to be open", b.Name(), b.State(), c.named)
			}
		})
	}
}
