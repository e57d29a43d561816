package breakerotel

import (
	"context"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/internal/spanevent"
)

// Do is breaker.Do, and adds events to the span of ctx: breaker.retry when another attempt begins, breaker.rejected
// when the call is not tried, breaker.gave_up when retries end. The success of a first attempt costs nothing more, with
// a span or without. Packages breakerhttp and breakergrpc add these events themselves.
func Do[T any](ctx context.Context, b *breaker.Breaker, fn func(context.Context) (T, error)) (T, error) {
	attempts := 0
	var last error
	v, err := breaker.Do(ctx, b, func(actx context.Context) (v T, err error) {
		if attempts++; attempts > 1 {
			spanevent.Retry(ctx, b.Name(), attempts, spanevent.Kind(last))
		}
		v, err = fn(actx)
		last = err
		return v, err
	})
	spanevent.End(ctx, b.Name(), err)
	return v, err
}

// DoOr is breaker.DoOr with the events of Do.
func DoOr[T any](
	ctx context.Context,
	b *breaker.Breaker,
	fn func(context.Context) (T, error),
	fallback func(context.Context, error) (T, error),
) (T, error) {
	v, err := Do(ctx, b, fn)
	if err != nil {
		return fallback(ctx, err)
	}
	return v, nil
}
