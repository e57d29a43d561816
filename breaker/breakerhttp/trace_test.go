package breakerhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerhttp"
)

var wantEvents = []string{
	"breaker.retry breaker.name=http/h breaker.attempt=2 error.type=503",
	"breaker.retry breaker.name=http/h breaker.attempt=3 error.type=timeout",
	"breaker.gave_up breaker.name=http/h breaker.attempt=3 breaker.reason=exhausted",
	"breaker.rejected breaker.name=http/h breaker.reason=open",
}

func TestSpanEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		b := &base{answer: func(req *http.Request) (*http.Response, error) {
			if n++; n == 2 {
				<-req.Context().Done()
				return nil, req.Context().Err()
			}
			return status(503)
		}}
		tr := breakerhttp.Must(breakerhttp.NewTransport(b,
			breakerhttp.Config{Breaker: breaker.Config{Failures: 3, Retry: breaker.Retry{Attempts: 3}}}))
		rec := tracetest.NewSpanRecorder()
		ctx, span := trace.NewTracerProvider(trace.WithSpanProcessor(rec)).Tracer("t").Start(t.Context(), "call")
		for range 2 {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://h/?token=s3cret", nil)
			if res, err := tr.RoundTrip(req); err == nil {
				res.Body.Close()
			}
		}
		span.End()
		var reported []string
		for _, e := range rec.Ended()[0].Events() {
			s := e.Name
			for _, a := range e.Attributes {
				s += fmt.Sprintf(" %s=%v", a.Key, a.Value.String())
			}
			reported = append(reported, s)
		}
		if d := cmp.Diff(wantEvents, reported); d != "" {
			t.Fatal(d)
		}
	})
}

// errgroup cancels with a cause, and net/http tells the cause alone.
func TestClientCancelledWithACause(t *testing.T) {
	other := errors.New("another part failed")
	c := client(t, breakerhttp.Config{}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(other) })
	_, err := breakerhttp.Get[user](ctx, c, "users")
	if errors.Is(err, breakerhttp.ErrUnavailable) || !errors.Is(err, context.Canceled) || !errors.Is(err, other) {
		t.Fatal(err)
	}
}
