package breakerotel

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sillar-go/sillar/breaker"
)

const scope = "github.com/sillar-go/sillar/breaker/breakerotel"

// maxNames bounds the values of breaker.name. The keys of a registry can come from requests, as those of tenants do.
const maxNames = 4096

// others is the value of breaker.name for breakers beyond maxNames.
const others = "(others)"

// Config says where the metrics go.
type Config struct {
	// MeterProvider makes the instruments. Default: the global one.
	MeterProvider metric.MeterProvider
}

// Instrument returns cfg with hooks that count, in front of those it has.
func Instrument(cfg breaker.Config, c Config) (breaker.Config, error) {
	c.MeterProvider = cmp.Or(c.MeterProvider, otel.GetMeterProvider())
	meter := c.MeterProvider.Meter(scope)
	calls, err := meter.Int64Counter("sillar.breaker.calls", metric.WithUnit("{call}"),
		metric.WithDescription("Attempts and rejections, by outcome."))
	if err != nil {
		return cfg, fmt.Errorf("breakerotel: make a counter: %w", err)
	}
	state, err := meter.Int64Gauge("sillar.breaker.state", metric.WithUnit("{state}"),
		metric.WithDescription("0 closed, 1 half-open, 2 open."))
	if err != nil {
		return cfg, fmt.Errorf("breakerotel: make a gauge: %w", err)
	}
	limit, err := meter.Int64Gauge("sillar.breaker.limit", metric.WithUnit("{call}"),
		metric.WithDescription("The adaptive limit of calls at work at once."))
	if err != nil {
		return cfg, fmt.Errorf("breakerotel: make a gauge: %w", err)
	}
	var seen names
	onCall, onState, onLimit := cfg.OnCall, cfg.OnStateChange, cfg.OnLimitChange
	cfg.OnCall = func(k breaker.Call) {
		label, first := seen.label(k.Name)
		if first { // a breaker that never changed its state is closed
			state.Record(context.Background(), int64(breaker.Closed), name(label))
		}
		outcome := k.Rejected
		if outcome == "" {
			outcome = k.Outcome.String()
		}
		calls.Add(context.Background(), 1, metric.WithAttributes(
			attribute.String("breaker.name", label), attribute.String("breaker.outcome", outcome)))
		if onCall != nil {
			onCall(k)
		}
	}
	cfg.OnStateChange = func(s breaker.StateChange) {
		label, _ := seen.label(s.Name)
		state.Record(context.Background(), int64(s.To), name(label))
		if onState != nil {
			onState(s)
		}
	}
	cfg.OnLimitChange = func(l breaker.LimitChange) {
		if label, _ := seen.label(l.Name); label != others { // a limit of many is none
			limit.Record(context.Background(), int64(l.To), name(label))
		}
		if onLimit != nil {
			onLimit(l)
		}
	}
	return cfg, nil
}

func name(s string) metric.RecordOption {
	return metric.WithAttributes(attribute.String("breaker.name", s))
}

// names remembers which names it has seen.
type names struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

// label returns the value of breaker.name for a breaker, and whether it is new.
func (n *names) label(s string) (label string, first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.seen[s]; ok {
		return s, false
	}
	if len(n.seen) >= maxNames {
		return others, false
	}
	if n.seen == nil {
		n.seen = map[string]struct{}{}
	}
	n.seen[s] = struct{}{}
	return s, true
}
