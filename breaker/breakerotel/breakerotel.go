package breakerotel

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sillar-go/sillar/breaker"
)

const scope = "github.com/sillar-go/sillar/breaker/breakerotel"

// maxNames bounds the names whose first appearance is remembered.
const maxNames = 4096

// Config says where the metrics go.
type Config struct {
	// MeterProvider makes the instruments. Default: the global one.
	MeterProvider metric.MeterProvider
}

// Instrument returns cfg with hooks that count, in front of those it has.
func Instrument(cfg breaker.Config, c Config) (breaker.Config, error) {
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
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
	var seen names
	onCall, onState := cfg.OnCall, cfg.OnStateChange
	cfg.OnCall = func(k breaker.Call) {
		if seen.add(k.Name) { // a breaker that never changed its state is closed
			state.Record(context.Background(), int64(breaker.Closed), name(k.Name))
		}
		outcome := k.Rejected
		if outcome == "" {
			outcome = k.Outcome.String()
		}
		calls.Add(context.Background(), 1, metric.WithAttributes(
			attribute.String("breaker.name", k.Name), attribute.String("breaker.outcome", outcome)))
		if onCall != nil {
			onCall(k)
		}
	}
	cfg.OnStateChange = func(s breaker.StateChange) {
		seen.add(s.Name)
		state.Record(context.Background(), int64(s.To), name(s.Name))
		if onState != nil {
			onState(s)
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

// add says whether s is new.
func (n *names) add(s string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.seen[s]; ok || len(n.seen) >= maxNames {
		return false
	}
	if n.seen == nil {
		n.seen = map[string]struct{}{}
	}
	n.seen[s] = struct{}{}
	return true
}
