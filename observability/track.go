package observability

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/errclass"
)

// global is what InstallGlobals has set.
var global atomic.Pointer[Telemetry]

type telemetryKey struct{}

// With returns a context that carries t, for TrackDependency, TrackOperation and Trace. Middleware does so for every
// request; message consumers and jobs do so themselves.
func (t *Telemetry) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, telemetryKey{}, t)
}

// FromContext returns the Telemetry of the context, or else the one that InstallGlobals has set, or nil.
func FromContext(ctx context.Context) *Telemetry {
	if t, ok := ctx.Value(telemetryKey{}).(*Telemetry); ok {
		return t
	}
	if q := requestFrom(ctx); q != nil {
		return q.tel
	}
	return global.Load()
}

// TrackDependency calls fn, a call to something outside, and measures it: dependency_request_duration_seconds by
// status, and dependency_errors_total by the kind of error. dependency and operation are labels: constants, nothing
// that a client sends. Without a Telemetry it only calls fn.
func TrackDependency[T any](
	ctx context.Context,
	dependency, operation string,
	fn func(context.Context) (T, error),
) (v T, err error) {
	t := FromContext(ctx)
	if t == nil {
		return fn(ctx)
	}
	start, returned := time.Now(), false
	defer func() {
		status := "success"
		if !returned || err != nil {
			status = "error"
			kind := "panic"
			if returned {
				kind = errclass.Of(err)
			}
			t.metrics.depErrors.WithLabelValues(dependency, operation, kind).Inc()
		}
		observe(ctx, t.metrics.depTime.WithLabelValues(dependency, operation, status), time.Since(start))
	}()
	v, err = fn(ctx)
	returned = true
	return v, err
}

// TrackOperation calls fn, an operation of the business, and measures it: business_operation_duration_seconds.
func TrackOperation[T any](ctx context.Context, operation string, fn func(context.Context) (T, error)) (T, error) {
	if t := FromContext(ctx); t != nil {
		start := time.Now()
		defer func() {
			observe(ctx, t.metrics.operation.WithLabelValues(operation), time.Since(start))
		}()
	}
	return fn(ctx)
}

// Trace calls fn inside a span of its own, which notes an error or a panic.
func Trace[T any](
	ctx context.Context,
	name string,
	fn func(context.Context) (T, error),
	attrs ...attribute.KeyValue,
) (v T, err error) {
	tracer := otel.Tracer(scope)
	if t := FromContext(ctx); t != nil {
		tracer = t.tracer
	}
	ctx, span := tracer.Start(ctx, name, trace.WithAttributes(attrs...))
	returned := false
	defer func() {
		switch {
		case !returned:
			span.SetStatus(codes.Error, "panic")
		case err != nil:
			errclass.Record(span, err)
		}
		span.End()
	}()
	v, err = fn(ctx)
	returned = true
	return v, err
}
