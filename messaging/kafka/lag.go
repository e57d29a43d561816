package kafka

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// commitsPerLag is after how many commit intervals a stream asks how far its partitions go: every 5 s by default.
const commitsPerLag = 50

// lagTimeout is for the answer.
const lagTimeout = 5 * time.Second

// measureLag makes the gauge sillar.kafka.lag.
func (b *Broker) measureLag(p metric.MeterProvider) (metric.Registration, error) {
	if p == nil {
		p = otel.GetMeterProvider()
	}
	meter := p.Meter(scope)
	gauge, err := meter.Int64ObservableGauge("sillar.kafka.lag", metric.WithUnit("{message}"),
		metric.WithDescription("Messages in the partitions of this process that its group has not settled."))
	if err != nil {
		return nil, err
	}
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		groups := map[string]int64{}
		for _, s := range b.subscribed() {
			groups[s.sub.Group] += s.lagging.Load()
		}
		for group, lag := range groups {
			o.ObserveInt64(gauge, lag, metric.WithAttributes(attribute.String("group", group)))
		}
		return nil
	}, gauge)
}

// updateLag counts what the stream's partitions hold that is not settled. Without an answer the last count stands.
func (s *stream) updateLag() {
	s.mu.Lock()
	var topics []string
	seen := map[string]bool{}
	for at := range s.parts {
		if !seen[at.topic] {
			seen[at.topic] = true
			topics = append(topics, at.topic)
		}
	}
	s.mu.Unlock()
	if len(topics) == 0 {
		s.lagging.Store(0)
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, lagTimeout)
	defer cancel()
	ends, err := listed(s.b.adm.ListEndOffsets(ctx, topics...))
	if err != nil {
		return
	}
	lag := int64(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, p := range s.parts {
		end, ok := ends.Lookup(at.topic, at.partition)
		if !ok {
			continue
		}
		from, settled := p.snapshot()
		left := end.Offset - from
		for _, s := range settled {
			left -= s.to - s.from
		}
		lag += max(left, 0)
	}
	s.lagging.Store(lag)
}
