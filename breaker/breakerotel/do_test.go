package breakerotel_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakerotel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down: password=s3cret")

// events runs fn within a span and returns the events of the span.
func events(t *testing.T, fn func(context.Context)) []string {
	t.Helper()
	rec := tracetest.NewSpanRecorder()
	ctx, span := trace.NewTracerProvider(trace.WithSpanProcessor(rec)).Tracer("t").Start(t.Context(), "call")
	fn(ctx)
	span.End()
	var reported []string
	for _, e := range rec.Ended()[0].Events() {
		s := e.Name
		for _, a := range e.Attributes {
			s += fmt.Sprintf(" %s=%v", a.Key, a.Value.String())
		}
		reported = append(reported, s)
	}
	return reported
}

func TestDoTellsTheSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retry := breaker.Retry{Attempts: 3}
		fail := func(context.Context) (int, error) { return 0, errDown }
		for name, c := range map[string]struct {
			cfg  breaker.Config
			fn   func(context.Context) (int, error)
			want []string
		}{
			"success": {breaker.Config{Retry: retry}, func(context.Context) (int, error) { return 1, nil }, nil},
			"failure": {breaker.Config{}, fail, nil},
			"exhausted": {breaker.Config{Name: "b", Retry: retry}, fail, []string{
				"breaker.retry breaker.name=b breaker.attempt=2 error.type=*errors.errorString",
				"breaker.retry breaker.name=b breaker.attempt=3 error.type=*errors.errorString",
				"breaker.gave_up breaker.name=b breaker.attempt=3 breaker.reason=exhausted"}},
			"opened by it": {breaker.Config{Name: "b", Retry: retry, Failures: 2, Timeout: time.Second},
				func(ctx context.Context) (int, error) {
					<-ctx.Done()
					return 0, ctx.Err()
				}, []string{
					"breaker.retry breaker.name=b breaker.attempt=2 error.type=deadline",
					"breaker.gave_up breaker.name=b breaker.attempt=2 breaker.reason=open"}},
		} {
			b := breaker.Must(breaker.New(c.cfg))
			if d := cmp.Diff(c.want, events(t, func(ctx context.Context) { _, _ = breakerotel.Do(ctx, b, c.fn) })); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
		b := breaker.Must(breaker.New(breaker.Config{Name: "b"}))
		b.Open()
		reported := events(t, func(ctx context.Context) {
			v, err := breakerotel.DoOr(ctx, b, fail, func(context.Context, error) (int, error) { return 7, nil })
			if v != 7 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
		})
		if d := cmp.Diff([]string{"breaker.rejected breaker.name=b breaker.reason=open"}, reported); d != "" {
			t.Error(d)
		}
	})
}

func TestASuccessAtOnceCostsNothing(t *testing.T) {
	b := breaker.Must(breaker.New(breaker.Config{Timeout: -1}))
	ctx := context.Background()
	fn := func(context.Context) (int, error) { return 1, nil }
	if n := testing.AllocsPerRun(1000, func() { _, _ = breakerotel.Do(ctx, b, fn) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func ExampleDo() {
	b := breaker.Must(breaker.New(breaker.Config{Name: "stock", Retry: breaker.Retry{Attempts: 3,
		Backoff: breaker.Exponential(time.Millisecond, 10*time.Second)}}))
	n, err := breakerotel.Do(context.Background(), b, func(context.Context) (int, error) { return 3, nil })
	fmt.Println(n, err)
	// Output: 3 <nil>
}
