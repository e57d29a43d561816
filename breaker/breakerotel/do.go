package breakerotel

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/internal/spanevent"
)

// Do is breaker.Do, and adds events to the span of ctx: breaker.retry when another attempt begins, breaker.rejected when
// the call is not tried, breaker.gave_up when retries end. Without a recording span it is breaker.Do and costs nothing
// more. Packages breakerhttp and breakergrpc add these events themselves.
func Do[T any](ctx context.Context, b *breaker.Breaker, fn func(context.Context) (T, error)) (T, error) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return breaker.Do(ctx, b, fn)
	}
	return traced(ctx, b, fn)
}

// traced is apart from Do, so that what the closure holds is not put on the heap when nobody records.
func traced[T any](ctx context.Context, b *breaker.Breaker, fn func(context.Context) (T, error)) (T, error) {
	attempts := 0
	var last error
	v, err := breaker.Do(ctx, b, func(actx context.Context) (T, error) {
		if attempts++; attempts > 1 {
			spanevent.Retry(ctx, b.Name(), attempts, spanevent.Kind(last))
		}
		v, err := fn(actx)
		last = err
		return v, err
	})
	spanevent.End(ctx, b.Name(), err)
	return v, err
}

// DoOr is breaker.DoOr with the events of Do.
func DoOr[T any](ctx context.Context, b *breaker.Breaker, fn func(context.Context) (T, error), fallback func(context.Context, error) (T, error)) (T, error) {
	v, err := Do(ctx, b, fn)
	if err != nil {
		return fallback(ctx, err)
	}
	return v, nil
}
