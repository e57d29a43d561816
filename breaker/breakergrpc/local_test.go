package breakergrpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakergrpc"
)

// noCredentials cannot get a token.
type noCredentials struct{ secure bool }

func (noCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, errors.New("the vault is sealed")
}
func (c noCredentials) RequireTransportSecurity() bool { return c.secure }

var _ credentials.PerRPCCredentials = noCredentials{}

// TestLocalErrorsOfGRPC makes calls that cannot be sent, unary and streaming, more often than opens a breaker: the breaker
// counts nothing, and the next call passes.
func TestLocalErrorsOfGRPC(t *testing.T) {
	for name, c := range map[string]struct {
		service string
		ctx     func(context.Context) context.Context
		opts    []grpc.CallOption
	}{
		"invalid UTF-8":             {service: "\xff"},
		"a message above our limit": {service: strings.Repeat("a", 100), opts: []grpc.CallOption{grpc.MaxCallSendMsgSize(10)}},
		"an answer above our limit": {opts: []grpc.CallOption{grpc.MaxCallRecvMsgSize(1)}},
		"metadata that is not ASCII": {ctx: func(ctx context.Context) context.Context {
			return metadata.AppendToOutgoingContext(ctx, "note", "a\nb")
		}},
		"a metadata key with a space":  {ctx: func(ctx context.Context) context.Context { return metadata.AppendToOutgoingContext(ctx, "no te", "a") }},
		"a compressor that is missing": {opts: []grpc.CallOption{grpc.UseCompressor("none-such")}},
		"credentials that fail":        {opts: []grpc.CallOption{grpc.PerRPCCredentials(noCredentials{})}},
		"credentials that need TLS":    {opts: []grpc.CallOption{grpc.PerRPCCredentials(noCredentials{secure: true})}},
	} {
		for kind, call := range map[string]func(ctx context.Context, client grpc_health_v1.HealthClient) error{
			"unary": func(ctx context.Context, client grpc_health_v1.HealthClient) error {
				_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: c.service}, c.opts...)
				return err
			},
			"stream": func(ctx context.Context, client grpc_health_v1.HealthClient) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				s, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: c.service}, c.opts...)
				if err != nil {
					return err
				}
				_, err = s.Recv()
				return err
			},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				_, client, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Failures: 2}})
				ctx := t.Context()
				if c.ctx != nil {
					ctx = c.ctx(ctx)
				}
				for range 5 {
					if err := call(ctx, client); err == nil || errors.Is(err, breaker.ErrOpen) {
						t.Fatalf("got %v, want the caller's error", err)
					} else if status.Code(err).String() == "" {
						t.Error("no status")
					}
				}
				deadline := time.Now().Add(5 * time.Second)
				for b.Counts().Ignored < 5 && time.Now().Before(deadline) { // a stream that is given up is counted a little later
					time.Sleep(time.Millisecond)
				}
				if n := b.Counts(); b.State() != breaker.Closed || n.Failures != 0 || n.Successes != 0 || n.Ignored != 5 {
					t.Errorf("counted %+v, %s; want 5 ignored", n, b.State())
				}
				if err := check(t.Context(), client); err != nil {
					t.Errorf("the next call: %v", err)
				}
			})
		}
	}
}
