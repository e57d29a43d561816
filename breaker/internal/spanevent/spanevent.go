// Package spanevent adds what a breaker did to the span of the call. It works on the caller's goroutine, within the
// call: hooks come later, when the span may have ended.
package spanevent

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/breaker"
)

// Retry records that attempt n begins, because the one before ended with an error of a kind.
func Retry(ctx context.Context, name string, n int, kind string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("breaker.retry", trace.WithAttributes(
			attribute.String("breaker.name", name), attribute.Int("breaker.attempt", n), attribute.String("error.type", kind)))
	}
}

// Hedge records that a second request is sent beside a slow one.
func Hedge(ctx context.Context, name string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("breaker.hedge", trace.WithAttributes(attribute.String("breaker.name", name)))
	}
}

// End records a call that was rejected, or given up after retries. Other errors are left to the caller.
func End(ctx context.Context, name string, err error) {
	if err == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	var gaveUp *breaker.RetryError
	switch {
	case breaker.IsRejection(err):
		span.AddEvent("breaker.rejected", trace.WithAttributes(
			attribute.String("breaker.name", name), attribute.String("breaker.reason", reason(err))))
	case errors.As(err, &gaveUp):
		span.AddEvent("breaker.gave_up", trace.WithAttributes(
			attribute.String("breaker.name", name), attribute.Int("breaker.attempt", gaveUp.Attempts),
			attribute.String("breaker.reason", reason(gaveUp.Reason))))
	}
}

// Kind names the type of an error: its text may hold what a trace should not.
func Kind(err error) string {
	switch {
	case errors.Is(err, breaker.ErrTimeout):
		return "timeout"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	}
	return fmt.Sprintf("%T", err)
}

func reason(err error) string {
	for _, r := range []struct {
		is   error
		name string
	}{
		{breaker.ErrOpen, "open"}, {breaker.ErrFull, "full"}, {breaker.ErrLimited, "limited"},
		{breaker.ErrOverloaded, "overloaded"}, {breaker.ErrExhausted, "exhausted"},
		{breaker.ErrBudget, "budget"}, {context.DeadlineExceeded, "deadline"}, {context.Canceled, "cancelled"},
	} {
		if errors.Is(err, r.is) {
			return r.name
		}
	}
	return "other"
}
