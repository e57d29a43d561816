package kafka_test

import (
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
)

// What is published is counted by outcome, and so are lost connections; the lag of a group is what it has not settled.
func TestMetricsCountPublishesAndLag(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	url, p := proxied(t)
	b := open(t, url, kafka.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)),
		Reconnect: messaging.Constant(10 * time.Millisecond), CommitInterval: 2 * time.Millisecond})
	s := subscribe(t, b, "g", 3, "t")
	events := []messaging.Envelope{{Type: "t", Key: "k"}, {Type: "bad topic"}, {Type: "t", Key: "k"},
		{Type: "t", Key: "k"}}
	if err := b.PublishBatch(t.Context(), events); !errors.Is(err, messaging.ErrInvalid) {
		t.Fatal(err)
	}
	first, second := receive(t, s), receive(t, s)
	if err := second.Ack(t.Context()); err != nil { // the last but one, so that it is behind the committed offset
		t.Fatal(err)
	}
	eventually(t, reader, "lag", 2)
	if err := first.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	eventually(t, reader, "lag", 1)
	got := sums(t, reader)
	if got["confirmed"] != 3 || got["error"] != 1 || got["lost"] == 0 {
		t.Errorf("got %v, want 3 confirmed, 1 error and lost connections", got)
	}
}

func eventually(t *testing.T, reader *metric.ManualReader, name string, want int64) {
	t.Helper()
	var got int64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = sums(t, reader)[name]; got == want {
			return
		}
	}
	t.Errorf("%s: got %d, want %d", name, got, want)
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
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, point := range data.DataPoints {
					if group, _ := point.Attributes.Value("group"); group.AsString() != "g" {
						t.Errorf("the lag of group %q", group.AsString())
					}
					got["lag"] += point.Value
				}
			case metricdata.Sum[int64]:
				for _, point := range data.DataPoints {
					name := "lost"
					if outcome, ok := point.Attributes.Value("outcome"); ok {
						name = outcome.AsString()
					}
					got[name] += point.Value
				}
			}
		}
	}
	return got
}
