package errclass_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/internal/errclass"
)

func TestRecordKeepsTheTextOut(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("key (email)=(ana@example.com): %w", context.DeadlineExceeded), "timeout"},
		{fmt.Errorf("x: %w", context.Canceled), "canceled"},
		{fmt.Errorf("ana@example.com: %w", errors.Join(errors.New("sentinel"), &net.DNSError{Err: "ana"})), "*net.DNSError"},
		{nil, ""},
	} {
		recorder := tracetest.NewSpanRecorder()
		_, span := trace.NewTracerProvider(trace.WithSpanProcessor(recorder)).Tracer("x").Start(t.Context(), "x")
		errclass.Record(span, c.err)
		span.End()
		ended := recorder.Ended()[0]
		class := ""
		for _, a := range ended.Attributes() {
			class += a.Value.AsString()
		}
		if class != c.want || ended.Status().Description != c.want || len(ended.Events()) != 0 {
			t.Errorf("%v: error.type %q, status %+v, events %v; want the class %q alone", c.err, class, ended.Status(),
				ended.Events(), c.want)
		}
	}
}
