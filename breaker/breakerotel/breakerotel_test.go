package breakerotel_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerotel"
)

func TestInstrumentRecordsAndKeepsHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdk.NewManualReader()
		provider := sdk.NewMeterProvider(sdk.WithReader(reader))
		var reported atomic.Int32
		cfg, err := breakerotel.Instrument(breaker.Config{Name: "b", Failures: 1, OnCall: func(breaker.Call) { reported.Add(1) },
			OnStateChange: func(breaker.StateChange) { reported.Add(1) }}, breakerotel.Config{MeterProvider: provider})
		if err != nil {
			t.Fatal(err)
		}
		b := breaker.Must(breaker.New(cfg))
		_ = b.Run(t.Context(), func(context.Context) error { return nil })
		synctest.Wait()
		if d := cmp.Diff(map[string]int64{"success": 1, "state": 0}, collect(t, reader)); d != "" {
			t.Fatal(d)
		}
		_ = b.Run(t.Context(), func(context.Context) error { return errors.New("x") })
		_ = b.Run(t.Context(), func(context.Context) error { return nil })
		synctest.Wait()
		if d := cmp.Diff(map[string]int64{"success": 1, "failure": 1, "open": 1, "state": 2}, collect(t, reader)); d != "" {
			t.Fatal(d)
		}
		if reported.Load() != 4 {
			t.Fatalf("the Config's own hooks were called %d times, want 4", reported.Load())
		}
	})
}

// The limit is a gauge, and keys that come from requests do not make series without bound.
func TestLimitAndBoundedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdk.NewManualReader()
		provider := sdk.NewMeterProvider(sdk.WithReader(reader), sdk.WithCardinalityLimit(0))
		var reported atomic.Int32
		cfg, err := breakerotel.Instrument(breaker.Config{
			Name: "b", Adaptive: breaker.AdaptiveLimit{Max: 7}, OnLimitChange: func(breaker.LimitChange) { reported.Add(1) },
		}, breakerotel.Config{MeterProvider: provider})
		if err != nil {
			t.Fatal(err)
		}
		breakers, err := breaker.NewRegistry(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 5000 {
			_ = breakers.Get(fmt.Sprint(n)).Run(t.Context(), func(context.Context) error { return nil })
		}
		synctest.Wait()
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		series := map[string]int{}
		for _, m := range all.ScopeMetrics[0].Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				series[m.Name] = len(data.DataPoints)
			case metricdata.Gauge[int64]:
				series[m.Name] = len(data.DataPoints)
				if m.Name == "sillar.breaker.limit" && data.DataPoints[0].Value != 7 {
					t.Errorf("limit %d, want 7", data.DataPoints[0].Value)
				}
			}
		}
		if series["sillar.breaker.limit"] != 4096 || series["sillar.breaker.calls"] != 4096 || reported.Load() != 5001 {
			t.Errorf("series %v, the Config's own hook was called %d times", series, reported.Load())
		}
	})
}

func collect(t *testing.T, reader sdk.Reader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				outcome, _ := p.Attributes.Value("breaker.outcome")
				got[outcome.AsString()] = p.Value
			}
		case metricdata.Gauge[int64]:
			got["state"] = data.DataPoints[0].Value
		}
	}
	return got
}

func ExampleInstrument() {
	cfg, err := breakerotel.Instrument(breaker.Config{Name: "billing"}, breakerotel.Config{})
	if err != nil {
		panic(err)
	}
	b := breaker.Must(breaker.New(cfg))
	fmt.Println(b.Name(), b.State())
	// Output: billing closed
}
