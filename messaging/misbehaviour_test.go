package messaging_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sillar-go/sillar/messaging"
)

// panics is a Deduplicator that does so before or after its work.
type panics struct{ after bool }

func (p panics) Once(ctx context.Context, _, _ string, fn func(context.Context) error) (bool, error) {
	if p.after {
		_ = fn(ctx)
	}
	panic("ouch")
}

var misbehaviours = map[string]struct {
	dedup   messaging.Deduplicator
	handler func()
}{
	"a panic":              {nil, func() { panic("ouch") }},
	"a panic with a dedup": {&seen{ids: map[string]bool{}}, func() { panic("ouch") }},
	"a dedup that panics":  {panics{}, func() {}},
	"... after its work":   {panics{after: true}, func() {}},
	"Goexit":               {nil, runtime.Goexit},
	"Goexit with a dedup":  {&seen{ids: map[string]bool{}}, runtime.Goexit},
}

// Whatever a handler or a Deduplicator does to its goroutine is a failed attempt, and the group goes on with the next
// message.
func TestPanicIsARetry(t *testing.T) {
	for name, c := range misbehaviours {
		t.Run(name, func(t *testing.T) {
			in(t, messaging.RouterConfig{}, func(w *world) {
				g := w.r.Group("g", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 2}, Dedup: c.dedup})
				messaging.HandleRaw(g, "a", func(context.Context, messaging.Message[[]byte]) error { c.handler(); return nil })
				ok := 0
				messaging.HandleRaw(w.r.Group("other", messaging.GroupConfig{}), "a",
					func(context.Context, messaging.Message[[]byte]) error {
						ok++
						return nil
					})
				w.start()
				for range 2 {
					w.publish("a", 1)
				}
				w.sleep(time.Hour)
				for _, d := range w.dead("g", 2) {
					if d.Attempts != 2 || !strings.Contains(d.Reason, messaging.ErrPanic.Error()) {
						t.Errorf("%d attempts, reason %q", d.Attempts, d.Reason)
					}
				}
				if ok != 2 {
					t.Errorf("another group handled %d messages", ok)
				}
			})
		})
	}
}

// The topics that others make up are no series of ours.
func TestSeriesAreFew(t *testing.T) {
	reader := metric.NewManualReader()
	in(t, messaging.RouterConfig{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))}, func(w *world) {
		g := w.r.Group("g", messaging.GroupConfig{})
		messaging.HandleRaw(g, "users.*", func(context.Context, messaging.Message[[]byte]) error { return nil })
		// more than it handles
		s, err := w.Subscribe(t.Context(), messaging.Subscription{Group: "g", Patterns: []string{"#"}})
		if err != nil || s.Close() != nil {
			t.Fatal(err)
		}
		w.start()
		for i := range 50 {
			w.publish(fmt.Sprint("users.", i), 1)
			w.publish(fmt.Sprint("nonsense.", i), 1)
		}
		w.sleep(time.Hour)
		w.dead("g", 50)
	})
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok {
			for _, p := range sum.DataPoints {
				topic, _ := p.Attributes.Value(attribute.Key("topic"))
				outcome, _ := p.Attributes.Value(attribute.Key("outcome"))
				counts[topic.AsString()+" "+outcome.AsString()] = p.Value
			}
		}
	}
	if len(counts) != 3 || counts["users.* ack"] != 50 || counts["(none) retry"] != 29*50 || counts["(none) dead"] != 50 {
		t.Errorf("series: %v", counts)
	}
}

// A handler that is added to a router that runs would never be met.
func TestLateHandler(t *testing.T) {
	in(t, messaging.RouterConfig{}, func(w *world) {
		g := w.r.Group("g", messaging.GroupConfig{})
		w.start()
		defer func() {
			if p := fmt.Sprint(recover()); !strings.Contains(p, "runs") {
				t.Errorf("a late handler: %s", p)
			}
		}()
		messaging.HandleRaw(g, "a", nil)
	})
}
