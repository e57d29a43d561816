package jetstream_test

import (
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

// What is published is counted by outcome, and so are lost connections.
func TestMetricsCountPublishesAndLostConnections(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	p := faultproxy.New(t, shared.Addr().String())
	b := open(t, "nats://"+p.Addr(), jetstream.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)),
		Reconnect: messaging.Constant(10 * time.Millisecond)})
	events := []messaging.Envelope{{Type: "t"}, {Type: "bad topic"}, {Type: "t"}}
	if err := b.PublishBatch(t.Context(), events); !errors.Is(err, messaging.ErrInvalid) {
		t.Fatal(err)
	}
	p.Cut()
	want := map[string]int64{"confirmed": 2, "error": 1, "lost": 1}
	var got map[string]int64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = sums(t, reader); got["lost"] > 0 {
			break
		}
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s: got %d, want %d", name, got[name], n)
		}
	}
}

func sums(t *testing.T, reader *metric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, _ := m.Data.(metricdata.Sum[int64])
			for _, point := range sum.DataPoints {
				name := "lost"
				if outcome, ok := point.Attributes.Value("outcome"); ok {
					name = outcome.AsString()
				}
				got[name] += point.Value
			}
		}
	}
	return got
}
