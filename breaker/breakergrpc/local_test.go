package breakergrpc_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
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

// TestLocalErrorsOfGRPC makes calls that cannot be sent, unary and streaming, more often than opens a breaker: the
// breaker counts nothing, the caller gets what docs/local-errors.md says, and the next call passes.
func TestLocalErrorsOfGRPC(t *testing.T) {
	got := map[string]map[string]string{} // kind of call, by error and kind of call
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		service string
		ctx     func(context.Context) context.Context
		opts    []grpc.CallOption
		hangs   bool
		before  bool // it ends before the breaker is asked
	}{
		"invalid UTF-8": {service: "\xff"},
		"a message above our limit": {service: strings.Repeat("a", 100),
			opts: []grpc.CallOption{grpc.MaxCallSendMsgSize(10)}},
		"an answer above our limit": {opts: []grpc.CallOption{grpc.MaxCallRecvMsgSize(1)}},
		"metadata that is not ASCII": {ctx: func(ctx context.Context) context.Context {
			return metadata.AppendToOutgoingContext(ctx, "note", "a\nb")
		}},
		"a metadata key with a space": {ctx: func(ctx context.Context) context.Context {
			return metadata.AppendToOutgoingContext(ctx, "no te", "a")
		}},
		"a compressor that is missing": {opts: []grpc.CallOption{grpc.UseCompressor("none-such")}},
		"credentials that fail":        {opts: []grpc.CallOption{grpc.PerRPCCredentials(noCredentials{})}},
		"credentials that need TLS":    {opts: []grpc.CallOption{grpc.PerRPCCredentials(noCredentials{secure: true})}},
		"a context that is cancelled":  {before: true, ctx: func(context.Context) context.Context { return cancelled }},
		"a deadline that is past":      {before: true, ctx: func(context.Context) context.Context { return past }},
		"a cancellation during the call": {hangs: true, ctx: func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(10*time.Millisecond, cancel)
			return ctx
		}},
		"a short deadline that passes": {hangs: true, ctx: func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			context.AfterFunc(ctx, cancel)
			return ctx
		}},
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
				s, client, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Failures: 2}})
				if got[name] == nil {
					got[name] = map[string]string{}
				}
				if c.hangs {
					s.every(hang)
				}
				for range 5 {
					ctx := t.Context()
					if c.ctx != nil {
						ctx = c.ctx(ctx)
					}
					if err := call(ctx, client); err == nil || errors.Is(err, breaker.ErrOpen) {
						t.Fatalf("got %v, want the caller's error", err)
					} else {
						got[name][kind] = "`" + status.Code(err).String() + "`"
					}
				}
				want := uint64(5)
				// with a busy CPU the deadline may pass before the breaker is asked
				if c.before || c.hangs && b.Counts().Ignored < 5 {
					want = b.Counts().Ignored
				}
				deadline := time.Now().Add(5 * time.Second)
				// a stream that is given up is counted a little later
				for b.Counts().Ignored < want && time.Now().Before(deadline) {
					time.Sleep(time.Millisecond)
				}
				if n := b.Counts(); b.State() != breaker.Closed || n.Failures != 0 || n.Successes != 0 || n.Ignored != want {
					t.Errorf("counted %+v, %s; want %d ignored", n, b.State(), want)
				}
				s.every(nil)
				if err := check(t.Context(), client); err != nil {
					t.Errorf("the next call: %v", err)
				}
			})
		}
	}
	table := "| error | gRPC unary | gRPC stream |\n|---|---|---|\n"
	for _, name := range slices.Sorted(maps.Keys(got)) {
		table += fmt.Sprintf("| %s | %s | %s |\n", name, got[name]["unary"], got[name]["stream"])
	}
	page, err := os.ReadFile("../../docs/local-errors.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), table) {
		t.Errorf("docs/local-errors.md does not have this table:\n%s", table)
	}
}
