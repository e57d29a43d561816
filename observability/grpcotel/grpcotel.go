package grpcotel

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/observability"
)

// Server returns the options of a server: spans, metrics, correlation id, one log line a call, and panics as
// codes.Internal.
func Server(tel *observability.Telemetry) []grpc.ServerOption {
	opts := append(common(tel), otelgrpc.WithFilter(func(i *stats.RPCTagInfo) bool { return !quiet(i.FullMethodName) }))
	if tel.PublicEdge() {
		opts = append(opts, otelgrpc.WithPublicEndpoint())
	}
	return []grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(opts...)),
		grpc.ChainUnaryInterceptor(unary(tel)),
		grpc.ChainStreamInterceptor(stream(tel)),
	}
}

// Client returns the options of a client: spans, metrics, and the ids of the context in the metadata of each call.
func Client(tel *observability.Telemetry) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(common(tel)...))}
}

func common(tel *observability.Telemetry) []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(tel.TracerProvider),
		otelgrpc.WithMeterProvider(tel.MeterProvider),
		otelgrpc.WithPropagators(tel.Propagator),
	}
}

// quiet reports whether a method is called by probes and tools only.
func quiet(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.") || strings.HasPrefix(method, "/grpc.reflection.")
}

func unary(tel *observability.Telemetry) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
		ctx, end := begin(ctx, tel, info.FullMethod)
		defer func() { err = end(recover(), err) }()
		return next(ctx, req)
	}
}

func stream(tel *observability.Telemetry) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		ctx, end := begin(ss.Context(), tel, info.FullMethod)
		defer func() { err = end(recover(), err) }()
		return next(srv, &serverStream{ss, ctx})
	}
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *serverStream) Context() context.Context { return s.ctx }

// begin makes the context of a call, and the function that ends it with what the handler has panicked with or returned.
func begin(
	ctx context.Context, tel *observability.Telemetry, method string,
) (context.Context, func(panicked any, err error) error) {
	start := time.Now()
	ctx, _ = observability.EnsureCorrelationID(tel.With(ctx)) // the stats handler has extracted that of the caller
	return ctx, func(panicked any, err error) error {
		attrs := make([]slog.Attr, 0, 5)
		if panicked != nil {
			err = status.Error(codes.Internal, "internal error")
			attrs = append(attrs, slog.String("panic", fmt.Sprint(panicked)), slog.String("stack", string(debug.Stack())))
		}
		code := status.Code(err)
		if err != nil && code == codes.Unknown { // as a server answers a context's error that is returned as it is
			code = status.FromContextError(err).Code()
		}
		level := slog.LevelInfo
		switch code {
		case codes.Unknown, codes.Internal, codes.DataLoss, codes.Unimplemented:
			level = slog.LevelError
		case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
			level = slog.LevelWarn
		}
		if level == slog.LevelInfo && quiet(method) {
			return err
		}
		attrs = append(attrs, slog.String("method", method), slog.String("code", code.String()),
			slog.Float64("duration_ms", float64(time.Since(start).Microseconds())/1000))
		tel.Logger.LogAttrs(ctx, level, "call", attrs...)
		return err
	}
}
