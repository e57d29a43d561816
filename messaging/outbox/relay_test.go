package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
	"github.com/sillar-go/sillar/messaging/outbox"
)

var (
	errBoom = errors.New("boom")
	quiet   = slog.New(slog.DiscardHandler)
)

func entry(id, key string) outbox.Entry {
	return outbox.Entry{Envelope: messaging.Envelope{ID: id, Key: key, Type: "t"}, Ref: id}
}

// run runs a relay in a bubble until test returns.
func run(t *testing.T, s *store, p publisher, cfg outbox.RelayConfig, test func(stop func() error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Logger = quiet
		r := outbox.Must(outbox.NewRelay(s, p, cfg))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		stop := sync.OnceValue(func() error { cancel(); return <-done })
		test(stop)
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		time.Sleep(time.Hour) // for timers of the drain
	})
}

// Of a batch the first of each key goes first, and a failure keeps back what is behind it.
func TestRelayPublishesKeysInOrder(t *testing.T) {
	s := &store{entries: []outbox.Entry{entry("a1", "a"), entry("a2", "a"), entry("b1", "b"), entry("x", ""),
		entry("y", ""), entry("a3", "a"), entry("b2", "b")}}
	var rounds [][]string
	p := func(_ context.Context, events []messaging.Envelope) error {
		var ids []string
		errs := make([]error, len(events))
		for i, e := range events {
			ids = append(ids, e.ID)
			if e.ID == "a2" || e.ID == "x" {
				errs[i] = errBoom
			}
		}
		rounds = append(rounds, ids)
		return driver.Batch(errs)
	}
	run(t, s, p, outbox.RelayConfig{Backoff: messaging.Constant(time.Minute)}, func(func() error) { synctest.Wait() })
	if got := fmt.Sprint(rounds); got != "[[a1 b1 x y] [a2 b2]]" {
		t.Errorf("rounds %s", got)
	}
	if got := fmt.Sprint(s.done()); got != "[hold 1m0s x done a1 done b1 done y hold 1m0s a2 done b2 release a3]" {
		t.Errorf("settled %s", got)
	}
}

// The drain ends at its deadline when the broker does not answer, and gives back uncounted.
func TestDrainDeadline(t *testing.T) {
	hang := func(ctx context.Context, _ []messaging.Envelope) error { <-ctx.Done(); return ctx.Err() }
	for _, c := range []struct{ timeout, want time.Duration }{{3 * time.Second, 3 * time.Second}, {-1, 0}} {
		s := &store{entries: []outbox.Entry{entry("a1", "a"), entry("a2", "a")}}
		run(t, s, hang, outbox.RelayConfig{DrainTimeout: c.timeout}, func(stop func() error) {
			synctest.Wait()
			begin := time.Now()
			if err := stop(); err != nil || time.Since(begin) != c.want {
				t.Errorf("Run returned %v after %v", err, time.Since(begin))
			}
		})
		if got := fmt.Sprint(s.done()); got != "[release a1 release a2]" {
			t.Errorf("settled %s", got)
		}
	}
}

// What is not confirmed in half the lease is held back while it is still ours.
func TestSlowBroker(t *testing.T) {
	s := &store{entries: []outbox.Entry{entry("a", "")}}
	var after time.Duration
	p := func(ctx context.Context, _ []messaging.Envelope) error {
		begin := time.Now()
		<-ctx.Done()
		after = time.Since(begin)
		return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, ctx.Err())
	}
	run(t, s, p, outbox.RelayConfig{Lease: 10 * time.Second, Backoff: messaging.Constant(time.Second)},
		func(func() error) {
			time.Sleep(time.Minute)
		})
	if got := fmt.Sprint(s.done()); after != 5*time.Second || got != "[hold 1s a]" {
		t.Errorf("after %v: %s", after, got)
	}
}

// What a broker does not confirm is held back, and what it confirms beside it goes on; a broker that takes nothing, or
// is left, has said nothing about any of them.
func TestUnconfirmedEventsAreHeldBack(t *testing.T) {
	for _, c := range []struct {
		why error
	}{{nil}, {messaging.ErrBlocked}, {context.Canceled}} {
		s := &store{entries: []outbox.Entry{entry("stuck", "k"), entry("a", ""), entry("behind", "k"), entry("c0", "c"),
			entry("c1", "c")}}
		p := func(ctx context.Context, events []messaging.Envelope) error {
			errs := make([]error, len(events))
			for i, e := range events {
				if e.ID == "stuck" {
					<-ctx.Done()
					errs[i] = fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, errors.Join(ctx.Err(), c.why))
					if c.why == context.Canceled {
						errs[i] = fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, c.why)
					}
				}
			}
			return driver.Batch(errs)
		}
		run(t, s, p, outbox.RelayConfig{Batch: 1 << 30, Backoff: messaging.Constant(time.Second)}, func(func() error) {
			time.Sleep(time.Minute)
		})
		got := s.done()
		held := slices.Contains(got, "hold 1s stuck") && slices.Contains(got, "release behind")
		released := slices.Contains(got, "release stuck") && slices.Contains(got, "release behind")
		if !slices.Contains(got, "done a") || !slices.Contains(got, "done c0") || held != (c.why == nil) ||
			released != (c.why != nil) {
			t.Errorf("%v: settled %v", c.why, got)
		}
		if s.limit > 10_000 {
			t.Errorf("claims of %d", s.limit)
		}
	}
}

// A database that is away for a while ends nothing.
func TestSurvivesTheDatabase(t *testing.T) {
	s := &store{claimErr: []error{errBoom, errBoom, errBoom}, entries: []outbox.Entry{entry("a", "")}}
	run(t, s, func(context.Context, []messaging.Envelope) error { return nil }, outbox.RelayConfig{}, func(func() error) {
		time.Sleep(time.Minute)
	})
	if got := fmt.Sprint(s.done()); got != "[done a]" {
		t.Errorf("settled %s", got)
	}
}

func TestMetricsCountEvents(t *testing.T) {
	reader := metric.NewManualReader()
	s := &store{entries: []outbox.Entry{entry("a", ""), entry("b", "")}}
	p := func(_ context.Context, events []messaging.Envelope) error {
		return driver.Batch([]error{nil, messaging.ErrUnroutable})
	}
	run(t, s, p, outbox.RelayConfig{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))},
		func(func() error) {
			synctest.Wait()
			var data metricdata.ResourceMetrics
			if err := reader.Collect(context.Background(), &data); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, m := range data.ScopeMetrics[0].Metrics {
				switch d := m.Data.(type) {
				case metricdata.Sum[int64]:
					for _, p := range d.DataPoints {
						v, _ := p.Attributes.Value("outcome")
						got[m.Name+" "+v.AsString()] = fmt.Sprint(p.Value)
					}
				case metricdata.Gauge[int64]:
					got[m.Name] = fmt.Sprint(d.DataPoints[0].Value)
				case metricdata.Gauge[float64]:
					got[m.Name] = fmt.Sprint(d.DataPoints[0].Value)
				}
			}
			want := "map[sillar.outbox.lag:60 sillar.outbox.pending:7 sillar.outbox.relayed published:1 " +
				"sillar.outbox.relayed unroutable:1]"
			if fmt.Sprint(got) != want {
				t.Errorf("metrics %v", got)
			}
		})
}

// An event is sent in the trace it was made in, and its consumers are children of the sending; one whose trace no
// process records is sent as it is.
func TestProducerSpans(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	headers := func(traceparent string) map[string]string {
		return map[string]string{"traceparent": traceparent, "x-correlation-id": "c-1"}
	}
	traced, failing, unsampled, plain := entry("traced", ""), entry("failing", ""), entry("unsampled", ""),
		entry("plain", "")
	traced.Headers, failing.Headers = headers(parent), headers(parent)
	unsampled.Headers = headers(parent[:53] + "00")
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	sent := map[string]map[string]string{}
	p := func(_ context.Context, events []messaging.Envelope) error {
		for _, e := range events {
			sent[e.ID] = e.Headers
		}
		return driver.Batch([]error{nil, errBoom, nil, nil})
	}
	s := &store{entries: []outbox.Entry{traced, failing, unsampled, plain}}
	run(t, s, p, outbox.RelayConfig{TracerProvider: tp}, func(func() error) { synctest.Wait() })
	got := spans.GetSpans()
	if len(got) != 2 {
		t.Fatalf("%d spans, want 2", len(got))
	}
	for _, g := range got {
		if g.SpanKind != trace.SpanKindProducer || g.Parent.SpanID().String() != "b7ad6b7169203331" ||
			g.SpanContext.TraceID().String() != parent[3:35] {
			t.Errorf("span %s: %v under %v", g.Name, g.SpanKind, g.Parent)
		}
	}
	if want := "00-" + parent[3:35] + "-" + got[0].SpanContext.SpanID().String() +
		"-01"; sent["traced"]["traceparent"] != want || sent["traced"]["x-correlation-id"] != "c-1" {
		t.Errorf("sent with %v, want traceparent %s", sent["traced"], want)
	}
	if got[0].Status.Code != codes.Unset || got[1].Status.Code != codes.Error {
		t.Errorf("statuses %v and %v", got[0].Status, got[1].Status)
	}
	if traced.Headers["traceparent"] != parent {
		t.Error("the entry itself was changed")
	}
	if sent["unsampled"]["traceparent"] != unsampled.Headers["traceparent"] || sent["plain"] != nil {
		t.Errorf("changed on the way: %v, %v", sent["unsampled"], sent["plain"])
	}
}

// frozen is a store whose first claim lasts as long as its context.
type frozen struct {
	store
	calls int
}

func (s *frozen) Claim(ctx context.Context, owner string, limit int, lease time.Duration) ([]outbox.Entry, error) {
	if s.calls++; s.calls == 1 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.store.Claim(ctx, owner, limit, lease)
}

func TestFrozenClaimDoesNotStopTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &frozen{store: store{entries: []outbox.Entry{entry("a", "")}}}
		p := publisher(func(context.Context, []messaging.Envelope) error { return nil })
		r := outbox.Must(outbox.NewRelay(s, p, outbox.RelayConfig{Logger: quiet}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(s.done()); got != "[done a]" {
			t.Errorf("settled %s, want [done a]", got)
		}
	})
}

func TestUnroutableEventsAreHeldOnlyWhereConfigured(t *testing.T) {
	for policy, want := range map[outbox.Unroutable]string{
		outbox.UnroutableDiscard: "[done a done b]",
		outbox.UnroutableHold:    "[hold 1s a done b]",
		outbox.UnroutableHoldKey: "[hold 1s a release b]",
	} {
		s := &store{entries: []outbox.Entry{entry("a", "k"), entry("b", "k")}}
		p := func(_ context.Context, events []messaging.Envelope) error {
			if events[0].ID == "a" {
				return driver.Batch([]error{messaging.ErrUnroutable})
			}
			return nil
		}
		cfg := outbox.RelayConfig{Unroutable: policy, Backoff: messaging.Constant(time.Second)}
		run(t, s, p, cfg, func(func() error) { synctest.Wait() })
		if got := fmt.Sprint(s.done()); got != want {
			t.Errorf("policy %d: settled %s, want %s", policy, got, want)
		}
	}
}

// Events that fail together are held by one statement, though pauses are random.
func TestEventsThatFailTogetherAreHeldTogether(t *testing.T) {
	s := &store{}
	for i := range 20 {
		s.entries = append(s.entries, entry(fmt.Sprint(i), ""))
	}
	p := func(context.Context, []messaging.Envelope) error { return messaging.ErrUnroutable }
	run(t, s, p, outbox.RelayConfig{Unroutable: outbox.UnroutableHold}, func(func() error) { synctest.Wait() })
	pauses := map[string]bool{}
	for _, line := range s.done() {
		pauses[strings.Fields(line)[1]] = true
	}
	if len(s.done()) != 20 || len(pauses) != 1 {
		t.Errorf("%d events were held, for the pauses %v; want 20, for one", len(s.done()), pauses)
	}
}
