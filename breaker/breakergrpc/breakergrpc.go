package breakergrpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/internal/spanevent"
	"github.com/sillar-go/sillar/internal/correlation"
)

// Config says how calls are guarded. The zero Config is useful.
type Config struct {
	// Breaker is the configuration of the breaker of each target; its Name is their prefix, default "grpc". Its
	// Classify defaults to this package's Classify. For a stream, Adaptive measures the time until the first message.
	Breaker breaker.Config
	// Key divides the calls to a target among several breakers, at most 1,024 in all. Default: one for each target.
	Key KeyFunc
	// Idempotent says whether a method, "/package.Service/Method", may be sent twice. Default: none may.
	Idempotent func(method string) bool
	// Propagator writes trace and correlation id into the metadata. Default: W3C trace context and X-Correlation-ID.
	// For the services of others, propagation.NewCompositeTextMapPropagator() writes nothing.
	Propagator propagation.TextMapPropagator
}

// Classify is the default: it takes the statuses that say something about the service for Failure.
func Classify(ctx context.Context, err error) breaker.Outcome {
	if out := breaker.DefaultClassify(ctx, err); out != breaker.Failure {
		return out
	}
	if errors.Is(err, context.DeadlineExceeded) { // ErrTimeout, or a deadline that no status speaks of
		return breaker.Failure
	}
	if local(status.Convert(err)) {
		return breaker.Ignore
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Internal, codes.Unavailable, codes.DataLoss, codes.ResourceExhausted:
		return breaker.Failure
	case codes.Canceled:
		return breaker.Ignore
	}
	return breaker.Success
}

// localMessages are the beginnings of the messages with which grpc-go ends a call on this side: a message that cannot
// be encoded or is above our own limits, metadata or a method that cannot be sent, credentials that could not be had.
// grpc-go has no types for them. TestLocalErrorsOfGRPC provokes each.
var localMessages = []string{
	"grpc: error while marshaling", "trying to send message larger than max", "grpc: received message larger than max",
	"grpc: received message after decompression larger than max", "header key ", "malformed method name",
	"grpc: Compressor is not installed",
	"transport: per-RPC creds failed", "grpc: the credentials require transport level security",
	"transport: cannot send secure credentials",
}

// local reports whether a call ended because of its message, its metadata or a limit of ours.
func local(s *status.Status) bool {
	switch s.Code() {
	case codes.Internal, codes.ResourceExhausted, codes.Unauthenticated, codes.Unknown, codes.InvalidArgument:
	default:
		return false
	}
	return slices.ContainsFunc(localMessages, func(begin string) bool { return strings.HasPrefix(s.Message(), begin) })
}

// Guard holds the breakers of the connections that use it. It is safe for concurrent use.
type Guard struct {
	cfg      Config
	breakers *breaker.Registry
}

// New returns a Guard, or an error when the Config makes no sense.
func New(cfg Config) (*Guard, error) {
	if cfg.Breaker.Name == "" {
		cfg.Breaker.Name = "grpc"
	}
	if cfg.Breaker.Classify == nil {
		cfg.Breaker.Classify = Classify
	}
	cfg.Propagator = cmp.Or(cfg.Propagator, correlation.DefaultPropagator())
	worth := cfg.Breaker.Retry.If
	cfg.Breaker.Retry.If = func(err error) bool {
		var m *methodError
		return errors.As(err, &m) && cfg.Idempotent != nil && cfg.Idempotent(m.method) && (worth == nil || worth(m.error))
	}
	breakers, err := breaker.NewRegistry(cfg.Breaker, 0)
	if err != nil {
		return nil, err
	}
	return &Guard{cfg: cfg, breakers: breakers}, nil
}

// Must returns g or panics with err.
func Must(g *Guard, err error) *Guard {
	if err != nil {
		panic(err)
	}
	return g
}

// DialOptions returns the interceptors of a new Guard. It panics on a Config that makes no sense; New returns the
// error.
func DialOptions(cfg Config) []grpc.DialOption { return Must(New(cfg)).DialOptions() }

// DialOptions returns the interceptors as options of grpc.NewClient.
func (g *Guard) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(g.Unary), grpc.WithChainStreamInterceptor(g.Stream)}
}

// Breaker returns the breaker of a target without a key, as it was given to grpc.NewClient.
func (g *Guard) Breaker(target string) *breaker.Breaker { return g.breakers.Get(target) }

// BreakerOf returns the breaker of a call. ctx carries the outgoing metadata.
func (g *Guard) BreakerOf(ctx context.Context, target, method string) *breaker.Breaker {
	return g.breakers.Get(g.key(ctx, target, method))
}

// Unary is a grpc.UnaryClientInterceptor.
func (g *Guard) Unary(
	ctx context.Context,
	method string,
	req, reply any,
	cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	ctx = g.inject(ctx)
	b := g.breakers.Get(g.key(ctx, cc.Target(), method))
	attempts := 0
	var last error
	err := b.Run(ctx, func(actx context.Context) error {
		if attempts++; attempts > 1 {
			spanevent.Retry(ctx, b.Name(), attempts, status.Code(last).String())
		}
		if last = invoke(actx, method, req, reply, cc, opts...); last != nil {
			return &methodError{last, method}
		}
		return nil
	})
	spanevent.End(ctx, b.Name(), err)
	return plain(err)
}

// Stream is a grpc.StreamClientInterceptor.
func (g *Guard) Stream(
	ctx context.Context,
	desc *grpc.StreamDesc,
	cc *grpc.ClientConn,
	method string,
	open grpc.Streamer,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx = g.inject(ctx)
	b := g.breakers.Get(g.key(ctx, cc.Target(), method))
	done, err := b.Allow(ctx)
	if err != nil {
		spanevent.End(ctx, b.Name(), err)
		return nil, plain(err)
	}
	end := func(err error) {
		if err != nil {
			err = &methodError{err, method}
		}
		done(err)
	}
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		end(err)
		return nil, err
	}
	// A caller that wants no more cancels its context, and need not read: then nothing else reports the end.
	stop := context.AfterFunc(ctx, func() { end(status.FromContextError(ctx.Err()).Err()) })
	return &stream{ClientStream: s, report: func(err error) { end(err); stop() }}, nil
}

func (g *Guard) inject(ctx context.Context) context.Context {
	md, ok := metadata.FromOutgoingContext(ctx) // a copy already
	if !ok {
		md = metadata.MD{}
	}
	g.cfg.Propagator.Inject(ctx, carrier(md))
	return metadata.NewOutgoingContext(ctx, md)
}

// stream reports the first message or status of the service to the breaker.
type stream struct {
	grpc.ClientStream
	report func(error)
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if errors.Is(err, io.EOF) {
		s.report(nil)
	} else {
		s.report(err)
	}
	return err
}

// methodError carries the method of an error to Retry.If.
type methodError struct {
	error
	method string
}

// Unwrap returns the call's own error.
func (e *methodError) Unwrap() error { return e.error }

// GRPCStatus returns the status of the call's own error.
func (e *methodError) GRPCStatus() *status.Status { return status.Convert(e.error) }

// Overload recognises, for an adaptive limit, that a service refuses load or took too long.
func (e *methodError) Overload() bool {
	switch status.Code(e.error) {
	case codes.ResourceExhausted, codes.DeadlineExceeded:
		return true
	}
	return errors.Is(e.error, context.DeadlineExceeded)
}

// rejected is a call that was not tried, with a status for code that looks at nothing else.
type rejected struct{ error }

// Unwrap returns the breaker's error.
func (e rejected) Unwrap() error { return e.error }

// GRPCStatus says Unavailable.
func (e rejected) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

// timedOut is an attempt that took too long.
type timedOut struct{ error }

// Unwrap returns the breaker's error.
func (e timedOut) Unwrap() error { return e.error }

// GRPCStatus says DeadlineExceeded.
func (e timedOut) GRPCStatus() *status.Status { return status.New(codes.DeadlineExceeded, e.Error()) }

// plain makes a breaker's error one that gRPC's callers understand.
func plain(err error) error {
	var again *breaker.RetryError
	switch m, own := err.(*methodError); { //nolint:errorlint // only our own, outermost wrapping comes off
	case err == nil:
		return nil
	case own:
		return m.error
	case errors.As(err, &again): // the last attempt's status is found by status.Code
		return err
	case breaker.IsRejection(err):
		return rejected{err}
	case errors.Is(err, breaker.ErrTimeout):
		return timedOut{err}
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return fmt.Errorf("breakergrpc: %w", err)
}

// carrier is outgoing metadata for a propagator.
type carrier metadata.MD

func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }
func (c carrier) Keys() (keys []string) {
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}
