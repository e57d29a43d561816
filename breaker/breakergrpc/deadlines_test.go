package breakergrpc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/breaker/breakergrpc"
)

var (
	hang = status.Error(codes.Aborted, "hang")
	down = status.Error(codes.Unavailable, "down")
)

func TestDeadlinesOfTheCallerAreNoFailures(t *testing.T) {
	s, c, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Deadline: 50 * time.Millisecond}})
	s.next = []error{hang, hang}
	if err := check(t.Context(), c); status.Code(err) != codes.DeadlineExceeded || errors.Is(err, breaker.ErrTimeout) ||
		b.Counts().Failures != 1 {
		t.Fatalf("ours: %v, %+v", err, b.Counts())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := check(ctx, c); status.Code(err) != codes.DeadlineExceeded || b.Counts().Failures != 1 ||
		b.Counts().Ignored != 1 {
		t.Fatalf("the caller's short one: %v, %+v", err, b.Counts())
	}
	if err := check(ctx, c); status.Code(err) != codes.DeadlineExceeded || b.Counts().Failures != 1 {
		t.Fatalf("the caller's, past at entry: %v, %+v", err, b.Counts())
	}
	other, stop := context.WithCancelCause(t.Context())
	stop(errors.New("another part failed"))
	if err := check(other, c); status.Code(err) != codes.Canceled {
		t.Fatalf("cancelled with a cause: %v", err)
	}
}

// A stream without a message until the caller's deadline is a failure, whichever side notices first.
func TestDeadlineOfAStream(t *testing.T) {
	s, c, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{ShortDeadline: -1, Failures: -1}})
	s.every(hang)
	for n := range uint64(5) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		w, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		cancel()
		deadline := time.Now().Add(5 * time.Second)
		for b.Counts().Failures <= n && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if got := b.Counts(); status.Code(err) != codes.DeadlineExceeded || got.Failures != n+1 || got.Successes != 0 {
			t.Fatalf("%v, counted %+v", err, got)
		}
	}
}

func TestARetryThatGivesUpKeepsTheStatus(t *testing.T) {
	rec := tracetest.NewSpanRecorder()
	ctx, span := trace.NewTracerProvider(trace.WithSpanProcessor(rec)).Tracer("t").Start(t.Context(), "call")
	s, c, b := dial(t, breakergrpc.Config{
		Breaker:    breaker.Config{Failures: 2, Retry: breaker.Retry{Attempts: 3, Backoff: breaker.Exponential(1, 1)}},
		Idempotent: func(string) bool { return true },
	})
	s.next = []error{down, down}
	err := check(ctx, c)
	if status.Code(err) != codes.Unavailable || !errors.Is(err, breaker.ErrOpen) || breaker.IsRejection(err) ||
		s.calls != 2 {
		t.Fatalf("%v after %d calls", err, s.calls)
	}
	if _, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{}); !breaker.IsRejection(err) ||
		status.Code(err) != codes.Unavailable {
		t.Fatalf("a stream: %v", err)
	}
	span.End()
	var reported []string
	for _, e := range rec.Ended()[0].Events() {
		reported = append(reported, e.Name)
		for _, a := range e.Attributes {
			if a.Key != "breaker.name" {
				reported[len(reported)-1] += fmt.Sprint(" ", a.Value.String())
			} else if a.Value.AsString() != b.Name() {
				t.Errorf("name %s", a.Value.AsString())
			}
		}
	}
	if want := []string{"breaker.retry 2 Unavailable", "breaker.gave_up 2 open",
		"breaker.rejected open"}; !slices.Equal(reported, want) {
		t.Fatalf("reported %q", reported)
	}
}

// A stream that is not read must not hold the place of a probe when its context ends.
func TestAStreamAsProbe(t *testing.T) {
	s, c, b := dial(t, breakergrpc.Config{Breaker: breaker.Config{Failures: 1, OpenFor: time.Millisecond}})
	s.next = []error{down}
	_ = check(t.Context(), c)
	time.Sleep(2 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), c); !errors.Is(err, breaker.ErrOpen) {
		t.Fatalf("a second probe: %v", err)
	}
	cancel()
	for deadline := time.Now().Add(30 * time.Second); b.Counts().Ignored == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the place was not given back: %+v", b.Counts())
		}
	}
	_, _ = w.Recv()
	if err := check(t.Context(), c); err != nil || b.State() != breaker.Closed {
		t.Fatalf("the next probe: %v, %v", err, b.State())
	}
}
