package saga

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sillar-go/sillar/internal/backoff"
)

// maxCounted bounds what a gauge counts, so that it costs the same however many sagas there are.
const maxCounted = 10_000

// observed counts the unfinished sagas of a definition in a status, and says when the oldest one was started.
type observed struct {
	saga   string
	status Status
	count  int
	oldest time.Time // zero where there is none
}

// gauges holds the exported figures of the store, which are read periodically.
type gauges struct {
	mu   sync.Mutex
	last []observed
}

// export registers the instruments, which report what was read last, and returns what unregisters them.
func (o *Orchestrator) export() (unregister func() error, err error) {
	m := o.tel.meter
	sagas, err1 := m.Int64ObservableGauge("sillar.saga.sagas", metric.WithUnit("{saga}"),
		metric.WithDescription("Sagas in the store that have not ended, by status, up to 10,000."))
	oldest, err2 := m.Float64ObservableGauge("sillar.saga.oldest", metric.WithUnit("s"),
		metric.WithDescription("Time since the start of the oldest saga that has not ended, by status."))
	running, err3 := m.Int64ObservableGauge("sillar.saga.running", metric.WithUnit("{saga}"),
		metric.WithDescription("Sagas at work in this process; those that wait are not."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	r, err := m.RegisterCallback(func(_ context.Context, obs metric.Observer) error {
		o.gauges.mu.Lock()
		for _, g := range o.gauges.last {
			with := metric.WithAttributes(attribute.String("saga", g.saga), attribute.String("status", string(g.status)))
			obs.ObserveInt64(sagas, int64(g.count), with)
			age := 0.0
			if !g.oldest.IsZero() {
				age = max(0, time.Since(g.oldest).Seconds())
			}
			obs.ObserveFloat64(oldest, age, with)
		}
		o.gauges.mu.Unlock()
		for name, n := range o.atWorkByName() {
			obs.ObserveInt64(running, int64(n), metric.WithAttributes(attribute.String("saga", name)))
		}
		return nil
	}, sagas, oldest, running)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}

// atWorkByName returns how many sagas are at work here, by their name: of a definition there may be several versions.
func (o *Orchestrator) atWorkByName() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	byName := map[string]int{}
	for def, n := range o.atWork {
		byName[def.name] += n
	}
	return byName
}

// observe reads the figures of the store until ctx ends. What cannot be read is not reported.
func (o *Orchestrator) observe(ctx context.Context) {
	names := map[string]struct{}{}
	for k := range o.defs {
		names[k.Name] = struct{}{}
	}
	for ctx.Err() == nil {
		var list []observed
		var err error
		for name := range names {
			for _, status := range []Status{Running, Compensating, Stuck} {
				g, gerr := o.observeOne(ctx, name, status)
				if gerr == nil {
					list = append(list, g)
				}
				err = errors.Join(err, gerr)
			}
		}
		if err != nil && ctx.Err() == nil {
			o.cfg.Logger.WarnContext(ctx, "saga: counting sagas for the metrics failed", "error", err)
		}
		o.gauges.mu.Lock()
		o.gauges.last = list
		o.gauges.mu.Unlock()
		_ = backoff.Sleep(ctx, o.cfg.ObserveInterval)
	}
}

func (o *Orchestrator) observeOne(ctx context.Context, name string, status Status) (g observed, err error) {
	f := Filter{Name: name, Statuses: []Status{status}, Limit: maxCounted}
	g = observed{saga: name, status: status}
	if g.count, err = o.store.Count(ctx, f); err != nil || g.count == 0 {
		return g, err
	}
	f.Limit = 1
	oldest, err := o.store.List(ctx, f)
	if err == nil && len(oldest) > 0 {
		g.oldest = oldest[0].CreatedAt
	}
	return g, err
}
