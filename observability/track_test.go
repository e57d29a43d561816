package observability_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/observability"
)

func TestTrackRecordsDurationAndOutcome(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	trackEach(t, spans)
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Name != "inner" || got[0].Parent.SpanID() != got[1].SpanContext.SpanID() ||
		got[0].Status.Description != "*errors.errorString" {
		t.Errorf("spans: %+v", got)
	}
	if v, err := observability.TrackDependency(t.Context(), "a", "b", func(context.Context) (int, error) {
		return 1, nil
	}); v != 1 || err != nil {
		t.Error("without a Telemetry")
	}
}

// trackEach tracks calls with each outcome.
func trackEach(t *testing.T, spans *tracetest.InMemoryExporter) {
	t.Helper()
	tel, _ := newTel(t, func(c *observability.Config) { c.SpanExporters = []sdktrace.SpanExporter{keep{spans}} })
	ctx := tel.With(t.Context())
	for _, err := range []error{nil, fmt.Errorf("read user 7: %w", &fs.PathError{Op: "open", Path: "/x",
		Err: errors.New("no")}), context.DeadlineExceeded} {
		v, got := observability.TrackDependency(ctx, "mongodb", "get_user", func(context.Context) (int, error) {
			return 7, err
		})
		if v != 7 || got != err {
			t.Errorf("%v, %v", v, got)
		}
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = observability.TrackDependency(ctx, "mongodb", "get_user", func(context.Context) (int, error) { panic("x") })
	}()
	_, _ = observability.TrackOperation(ctx, "create_order", func(context.Context) (int, error) { return 0, nil })
	for s, want := range map[string]string{
		`dependency_request_duration_seconds_count{dependency_name="mongodb",operation="get_user",status="success"}`: "1",
		`dependency_request_duration_seconds_count{dependency_name="mongodb",operation="get_user",status="error"}`:   "3",
		`dependency_errors_total{dependency_name="mongodb",error_type="timeout",operation="get_user"}`:               "1",
		`dependency_errors_total{dependency_name="mongodb",error_type="panic",operation="get_user"}`:                 "1",
		`dependency_errors_total{dependency_name="mongodb",error_type="*errors.errorString",operation="get_user"}`:   "1",
		`business_operation_duration_seconds_count{operation="create_order"}`:                                        "1",
	} {
		if v := metric(t, tel, s); v != want {
			t.Errorf("%s is %q, want %s", s, v, want)
		}
	}
	_, _ = observability.Trace(ctx, "outer", func(ctx context.Context) (int, error) {
		return observability.Trace(ctx, "inner", func(context.Context) (int, error) { return 0, errors.New("no") },
			attribute.String("db.system", "mongodb"))
	})
	_ = tel.Shutdown(t.Context())
}

type dead struct{ tries int }

func (d *dead) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	d.tries++
	return errors.New("connection refused")
}
func (*dead) Shutdown(context.Context) error { return nil }

func TestDeadCollectorIsReported(t *testing.T) {
	tel, log := newTel(t, func(c *observability.Config) { c.SpanExporters = []sdktrace.SpanExporter{&dead{}} })
	start := time.Now()
	for range 5000 {
		_, _ = observability.Trace(tel.With(t.Context()), "x", func(context.Context) (int, error) { return 0, nil })
	}
	if err := tel.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "spans were lost") {
		t.Errorf("Shutdown: got %v, want the number of spans that were lost", err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("took %s", d)
	}
	if n := len(log.all(t)); n < 1 || n > 2 { // one while it goes on, one at the end
		t.Errorf("%d lines about it: %s", n, log)
	}
	if sum := spanTotals(t, tel); sum["sent"] != 0 || sum["failed"]+sum["dropped"] != 5000 {
		t.Errorf("got %v, want 5000 failed or dropped", sum)
	}
}
