package brokermetrics

import (
	"errors"
	"maps"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/messaging"
)

// Every way to fail is counted under its most telling name.
func TestOutcomesAreCounted(t *testing.T) {
	reader := sdk.NewManualReader()
	m, err := New(sdk.NewMeterProvider(sdk.WithReader(reader)), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	m.Published(t.Context(), []error{nil, nil, messaging.ErrUnroutable, errors.Join(messaging.ErrUnknownOutcome,
		messaging.ErrBlocked), errors.New("x")})
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, p := range data.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64]).DataPoints {
		v, _ := p.Attributes.Value("outcome")
		got[v.AsString()] = p.Value
	}
	if want := map[string]int64{"confirmed": 2, "unroutable": 1, "blocked": 1, "error": 1}; !maps.Equal(got, want) {
		t.Fatalf("counted %v, want %v", got, want)
	}
}
