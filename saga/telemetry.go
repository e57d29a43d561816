package saga

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/errclass"
)

const scope = "github.com/sillar-go/sillar/saga"

type telemetry struct {
	tracer   trace.Tracer
	finished metric.Int64Counter
	steps    metric.Float64Histogram
	overdue  metric.Int64UpDownCounter
	meter    metric.Meter
	attempts sync.Map // of attempt: the attributes as they are recorded, which would else be sorted for each attempt
}

// attempt is what attempts are counted by.
type attempt struct{ saga, step, direction, outcome string }

func (t *telemetry) attributes(a attempt) metric.MeasurementOption {
	if kept, ok := t.attempts.Load(a); ok {
		return kept.(metric.MeasurementOption)
	}
	made := metric.WithAttributeSet(attribute.NewSet(attribute.String("saga", a.saga), attribute.String("step", a.step),
		attribute.String("direction", a.direction), attribute.String("outcome", a.outcome)))
	t.attempts.Store(a, made)
	return made
}

func newTelemetry(cfg Config) (*telemetry, error) {
	tp, mp := cfg.TracerProvider, cfg.MeterProvider
	tp = cmp.Or(tp, otel.GetTracerProvider())
	mp = cmp.Or(mp, otel.GetMeterProvider())
	m := mp.Meter(scope)
	finished, err := m.Int64Counter("sillar.saga.finished", metric.WithUnit("{saga}"),
		metric.WithDescription("Sagas that ended, by how they ended."))
	steps, err2 := m.Float64Histogram("sillar.saga.step.duration", metric.WithUnit("s"),
		metric.WithDescription("Attempts of actions and compensations."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60))
	overdue, err3 := m.Int64UpDownCounter("sillar.saga.handlers.overdue", metric.WithUnit("{handler}"),
		metric.WithDescription("Handlers that run on although their timeout has passed."))
	return &telemetry{tracer: tp.Tracer(scope), finished: finished, steps: steps, overdue: overdue, meter: m},
		errors.Join(err, err2, err3)
}

func (t *telemetry) saga(ctx context.Context, r Record) (context.Context, trace.Span) {
	return t.tracer.Start(ctx, "saga "+r.Name, trace.WithAttributes(
		attribute.String("sillar.saga.name", r.Name), attribute.String("sillar.saga.id", r.ID),
		attribute.Int64("sillar.saga.fence", r.Fence)))
}

func direction(c *Call) string {
	if c.undo {
		return "undo"
	}
	return "do"
}

func (t *telemetry) step(ctx context.Context, c *Call) (context.Context, trace.Span) {
	return t.tracer.Start(ctx, direction(c)+" "+c.step, trace.WithAttributes(
		attribute.String(
			"sillar.saga.id",
			c.id,
		),
		attribute.String("sillar.saga.step", c.step),
		attribute.Int("sillar.saga.attempt", c.attempt),
	))
}

func (t *telemetry) stepDone(
	ctx context.Context,
	span trace.Span,
	name string,
	c *Call,
	took time.Duration,
	err error,
) {
	outcome := "success"
	if err != nil {
		outcome = "in_doubt"
		if isRejected(err) {
			outcome = "rejected"
		} else if _, ok := asNotAttempted(err); ok {
			outcome = "not_attempted"
		}
		errclass.Record(span, err)
		span.SetStatus(codes.Error, outcome)
	}
	t.steps.Record(ctx, took.Seconds(), t.attributes(attempt{name, c.step, direction(c), outcome}))
	span.End()
}

// countEnd counts and logs a saga that a write has ended.
func (o *Orchestrator) countEnd(ctx context.Context, r Record) {
	o.tel.finished.Add(
		ctx, 1, metric.WithAttributes(attribute.String("saga", r.Name), attribute.String("status", string(r.Status))),
	)
	attrs := []any{"saga", r.Name, "saga_id", r.ID}
	switch r.Status {
	case Stuck:
		o.cfg.Logger.ErrorContext(
			ctx,
			"saga: stuck: mend the cause and call Retry or RetryAll, or do the step by hand and call Skip",
			append(attrs, "error", r.Err())...)
	case Compensated:
		o.cfg.Logger.InfoContext(ctx, "saga: compensated", append(attrs, "step", r.FailedStep, "cause", r.Cause)...)
	default:
		o.cfg.Logger.DebugContext(ctx, "saga: completed", attrs...)
	}
}
