package gateway

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sillar-go/sillar/breaker"
)

// measureInstances registers the instruments of instances. They are observed, not recorded: an instance that has left
// has no series, and addresses that change make no more of them than there are instances.
func (g *Gateway) measureInstances() (metric.Registration, error) {
	m := g.cfg.MeterProvider.Meter(scope)
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	inFlight, err := m.Int64ObservableGauge("sillar.gateway.instance.in_flight", metric.WithUnit("{request}"),
		metric.WithDescription("Requests in progress at an instance."))
	note(err)
	state, err := m.Int64ObservableGauge("sillar.gateway.instance.breaker", metric.WithUnit("{state}"),
		metric.WithDescription("State of the circuit breaker of an instance: 0 closed, 1 half-open, 2 open."))
	note(err)
	healthy, err := m.Int64ObservableGauge("sillar.gateway.instance.healthy", metric.WithUnit("{instance}"),
		metric.WithDescription("1 while the health checks of an instance succeed, else 0."))
	note(err)
	attempts, err := m.Int64ObservableCounter("sillar.gateway.instance.attempts", metric.WithUnit("{attempt}"),
		metric.WithDescription("Attempts at an instance, by whether they failed: by 5xx or no answer."))
	note(err)
	waited, err := m.Float64ObservableCounter("sillar.gateway.instance.wait", metric.WithUnit("s"),
		metric.WithDescription("Time until the answers of an instance began, or the attempts failed, in total."))
	note(err)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, r := range g.table.Load().routes {
			for _, i := range r.rotation.Load().all {
				route, at := attribute.String("route", r.Name), attribute.String("server.address", i.url.Host)
				set := metric.WithAttributeSet(attribute.NewSet(route, at))
				o.ObserveInt64(inFlight, i.busy.Load(), set)
				o.ObserveInt64(state, stateNumber(i.breaker.State()), set)
				up := int64(1)
				if i.unhealthy.Load() {
					up = 0
				}
				o.ObserveInt64(healthy, up, set)
				failed := i.failed.Load()
				o.ObserveInt64(attempts, failed, metric.WithAttributes(route, at, attribute.Bool("failed", true)))
				o.ObserveInt64(
					attempts, i.answers.Load()-failed, metric.WithAttributes(route, at, attribute.Bool("failed", false)),
				)
				o.ObserveFloat64(waited, time.Duration(i.waited.Load()).Seconds(), set)
			}
		}
		return nil
	}, inFlight, state, healthy, attempts, waited)
}

func stateNumber(s breaker.State) int64 {
	switch s {
	case breaker.HalfOpen:
		return 1
	case breaker.Open:
		return 2
	}
	return 0
}
