// Package cqrs gives commands and queries one shape, so that logging, metrics, tracing, validation and retries are
// written once and put around them.
//
//	place := cqrs.Chain(cqrs.HandlerFunc[PlaceOrder, Order](orders.Place),
//		cqrs.Traced[PlaceOrder, Order]("place_order", cqrs.Config{}),
//		cqrs.Logged[PlaceOrder, Order]("place_order", cqrs.Config{}),
//		cqrs.Validated[PlaceOrder, Order](PlaceOrder.Validate),
//		cqrs.RetryOnConflict[PlaceOrder, Order](5))
//	order, err := place.Handle(ctx, PlaceOrder{...})
//
// The first decorator is the outermost. There is no registry and no bus: a handler is a value, and who needs it holds
// it. Package remote makes handlers of those behind a broker. Contents of commands and results are neither logged nor
// put into spans.
package cqrs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/errclass"
)

const scope = "github.com/sillar-go/sillar/messaging/cqrs"

// ErrInvalid is matched by what Validated returns; the validation's own error is matched too.
var ErrInvalid = errors.New("cqrs: invalid")

// Handler handles a command or a query C and returns R.
type Handler[C, R any] interface {
	Handle(ctx context.Context, c C) (R, error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc[C, R any] func(ctx context.Context, c C) (R, error)

// Handle implements Handler.
func (f HandlerFunc[C, R]) Handle(ctx context.Context, c C) (R, error) { return f(ctx, c) }

// Decorator puts something around a handler.
type Decorator[C, R any] func(next Handler[C, R]) Handler[C, R]

// Chain puts decorators around a handler, the first outermost.
func Chain[C, R any](h Handler[C, R], decorators ...Decorator[C, R]) Handler[C, R] {
	for i := len(decorators) - 1; i >= 0; i-- {
		h = decorators[i](h)
	}
	return h
}

// Config tunes Logged, Measured and Traced, and Decorate. The zero value is useful.
type Config struct {
	// Logger gets a line a call: debug, or warn for an error. Default slog.Default().
	Logger *slog.Logger
	// TracerProvider makes the spans. Default the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider takes sillar.cqrs.duration. Default the global one.
	MeterProvider metric.MeterProvider
}

// Decorate puts tracing, metrics and logging around a handler, in this order from outside.
func Decorate[C, R any](h Handler[C, R], name string, cfg Config) Handler[C, R] {
	return Chain(h, Traced[C, R](name, cfg), Measured[C, R](name, cfg), Logged[C, R](name, cfg))
}

// Logged writes a line a call.
func Logged[C, R any](name string, cfg Config) Decorator[C, R] {
	log := cmp.Or(cfg.Logger, slog.Default())
	return func(next Handler[C, R]) Handler[C, R] {
		return HandlerFunc[C, R](func(ctx context.Context, c C) (R, error) {
			start := time.Now()
			r, err := next.Handle(ctx, c)
			if err != nil {
				log.WarnContext(ctx, "cqrs: failed", "handler", name, "duration", time.Since(start), "error", err)
			} else {
				log.DebugContext(ctx, "cqrs: handled", "handler", name, "duration", time.Since(start))
			}
			return r, err
		})
	}
}

// Measured records the duration of calls, by handler and outcome.
func Measured[C, R any](name string, cfg Config) Decorator[C, R] {
	provider := cfg.MeterProvider
	provider = cmp.Or(provider, otel.GetMeterProvider())
	h, err := provider.Meter(scope).Float64Histogram("sillar.cqrs.duration", metric.WithUnit("s"),
		metric.WithDescription("Time that a command or query took, by handler and outcome (ok, error)."),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10))
	if err != nil {
		cmp.Or(cfg.Logger, slog.Default()).Warn("cqrs: no metrics", "handler", name, "error", err)
	}
	return func(next Handler[C, R]) Handler[C, R] {
		return HandlerFunc[C, R](func(ctx context.Context, c C) (R, error) {
			start := time.Now()
			r, err := next.Handle(ctx, c)
			outcome := "ok"
			if err != nil {
				outcome = "error"
			}
			if h != nil {
				h.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(attribute.String("handler", name),
					attribute.String("outcome", outcome)))
			}
			return r, err
		})
	}
}

// Traced makes a span a call.
func Traced[C, R any](name string, cfg Config) Decorator[C, R] {
	provider := cfg.TracerProvider
	provider = cmp.Or(provider, otel.GetTracerProvider())
	tracer := provider.Tracer(scope)
	return func(next Handler[C, R]) Handler[C, R] {
		return HandlerFunc[C, R](func(ctx context.Context, c C) (R, error) {
			ctx, span := tracer.Start(ctx, name)
			defer span.End()
			returned := false
			defer func() {
				if !returned { // the handler panicked, or ended its goroutine
					span.SetStatus(codes.Error, "the handler panicked")
				}
			}()
			r, err := next.Handle(ctx, c)
			returned = true
			if err != nil {
				errclass.Record(span, err)
				span.SetStatus(codes.Error, "the handler failed")
			}
			return r, err
		})
	}
}

// Validated runs validate first; what it refuses does not reach the handler, and is returned as ErrInvalid.
func Validated[C, R any](validate func(C) error) Decorator[C, R] {
	return func(next Handler[C, R]) Handler[C, R] {
		return HandlerFunc[C, R](func(ctx context.Context, c C) (R, error) {
			if err := validate(c); err != nil {
				var zero R
				return zero, fmt.Errorf("%w: %w", ErrInvalid, err)
			}
			return next.Handle(ctx, c)
		})
	}
}

// RetryOnConflict runs the handler up to attempts times (at least once) while its error says, by a method Conflict()
// bool, that another one changed the same thing meanwhile. Between them it pauses some milliseconds, with jitter.
func RetryOnConflict[C, R any](attempts int) Decorator[C, R] {
	pause := backoff.Exponential(5*time.Millisecond, 500*time.Millisecond)
	return func(next Handler[C, R]) Handler[C, R] {
		return HandlerFunc[C, R](func(ctx context.Context, c C) (R, error) {
			for n := 1; ; n++ {
				r, err := next.Handle(ctx, c)
				if n >= attempts || !conflict(err) || backoff.Sleep(ctx, pause.Delay(n)) != nil {
					return r, err
				}
			}
		})
	}
}

func conflict(err error) bool {
	var c interface{ Conflict() bool }
	return errors.As(err, &c) && c.Conflict()
}
