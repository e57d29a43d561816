// Package brokermetrics counts what the client of a broker publishes and which connections it loses.
package brokermetrics

import (
	"cmp"
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sillar-go/sillar/messaging"
)

// Meters are the counters of one client.
type Meters struct {
	published metric.Int64Counter
	lost      metric.Int64Counter
}

// New makes the counters sillar.<broker>.published and sillar.<broker>.connections_lost. A nil provider is the global
// one.
func New(p metric.MeterProvider, scope, broker string) (m Meters, err error) {
	p = cmp.Or(p, otel.GetMeterProvider())
	meter := p.Meter(scope)
	var err1, err2 error
	m.published, err1 = meter.Int64Counter("sillar."+broker+".published", metric.WithUnit("{message}"),
		metric.WithDescription("Messages published, by outcome (confirmed, unroutable, nacked, unknown, blocked, closed, "+
			"error)."))
	m.lost, err2 = meter.Int64Counter("sillar."+broker+".connections_lost", metric.WithUnit("{connection}"),
		metric.WithDescription("Connections that broke."))
	return m, errors.Join(err1, err2)
}

// outcomes go from the more to the less telling: an error may match several.
var outcomes = []struct {
	err  error
	name metric.MeasurementOption
}{
	{messaging.ErrUnroutable, outcome("unroutable")},
	{messaging.ErrNacked, outcome("nacked")},
	{messaging.ErrClosed, outcome("closed")},
	{messaging.ErrBlocked, outcome("blocked")},
	{messaging.ErrUnknownOutcome, outcome("unknown")},
}

var confirmed, failed = outcome("confirmed"), outcome("error")

func outcome(s string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", s)))
}

// Published counts messages, by what became of each; a nil error is a message that was confirmed.
func (m Meters) Published(ctx context.Context, errs []error) {
	ok := int64(0)
	for _, err := range errs {
		if err == nil {
			ok++
			continue
		}
		name := failed
		for _, o := range outcomes {
			if errors.Is(err, o.err) {
				name = o.name
				break
			}
		}
		m.published.Add(ctx, 1, name)
	}
	if ok > 0 {
		m.published.Add(ctx, ok, confirmed)
	}
}

// Lost counts a connection that broke.
func (m Meters) Lost(ctx context.Context, attributes ...attribute.KeyValue) {
	m.lost.Add(ctx, 1, metric.WithAttributes(attributes...))
}
