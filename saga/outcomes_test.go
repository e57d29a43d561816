package saga_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sillar-go/sillar/breaker"
	"github.com/sillar-go/sillar/saga"
)

// A step that an open breaker refuses was never tried: it waits until the breaker admits a probe, and loses no attempt.
func TestErrorThatDeclaresNotAttemptedUsesNoAttempt(t *testing.T) {
	for name, refusal := range map[string]error{
		"open breaker":     fmt.Errorf("pay: %w", &breaker.OpenError{Name: "payments", RetryAfter: 30 * time.Second}),
		"full bulkhead":    breaker.ErrFull,
		"rate limit":       breaker.ErrLimited,
		"too many (HTTP)":  saga.HTTPError(http.StatusTooManyRequests, time.Minute, errBoom),
		"exhausted (gRPC)": saga.GRPCError(8, errBoom),
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			def := saga.Define("trip", 1, saga.Step("car", func(context.Context, *saga.Call, *trip) error {
				if tries++; tries <= 10 {
					return refusal
				}
				return nil
			}).Retry(1, saga.Constant(time.Second)))
			run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
				st := status(t, o, "t1").Steps[0]
				if err != nil || st.Attempts != 1 || st.InDoubt {
					t.Errorf("%v after %d tries, %d attempts, in doubt %v, want 1 attempt and no doubt", err, tries, st.Attempts,
						st.InDoubt)
				}
			})
		})
	}
	t.Run("attempts were made", func(t *testing.T) {
		err := &breaker.RetryError{Attempts: 2, Err: errBoom, Reason: &breaker.OpenError{}}
		def := saga.Define("trip", 1, saga.Step("car", (&world{}).fail("car", err)).Retry(2, saga.Constant(0)))
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			if st := status(t, o, "t1").Steps[0]; !errors.Is(err, saga.ErrCompensated) || !st.InDoubt || st.Attempts != 2 {
				t.Errorf("%v, %d attempts, in doubt %v", err, st.Attempts, st.InDoubt)
			}
		})
	})
}

func TestStatusCodesMapToOutcomes(t *testing.T) {
	outcome := func(err error) string {
		var tries int
		var out string
		def := saga.Define("trip", 1, saga.Step("car", func(context.Context, *saga.Call, *trip) error {
			if tries++; tries == 1 {
				return err
			}
			return nil
		}))
		run(t, def, func(t *testing.T, o *saga.Orchestrator, _ trip, err error) {
			switch st := status(t, o, "t1").Steps[0]; {
			case errors.Is(err, saga.ErrCompensated) && !st.InDoubt:
				out = "rejected"
			case st.InDoubt:
				out = "in doubt"
			case tries == 2:
				out = "not attempted"
			default:
				out = "done"
			}
		})
		return out
	}
	for code, want := range map[int]string{200: "done", 204: "done", 302: "rejected", 400: "rejected", 404: "rejected",
		408: "in doubt", 409: "in doubt",
		422: "rejected", 425: "not attempted", 429: "not attempted", 500: "in doubt", 501: "rejected", 502: "in doubt",
		503: "in doubt", 504: "in doubt"} {
		if got := outcome(saga.HTTPError(code, 0, errBoom)); got != want {
			t.Errorf("HTTP %d is %s, want %s", code, got, want)
		}
	}
	if got := outcome(saga.HTTPError(503, time.Second, errBoom)); got != "not attempted" {
		t.Errorf("HTTP 503 with Retry-After is %s, want not attempted", got)
	}
	for code, want := range map[uint32]string{0: "done", 1: "in doubt", 3: "rejected", 4: "in doubt", 7: "rejected",
		8: "not attempted", 13: "in doubt",
		14: "in doubt", 16: "rejected"} {
		if got := outcome(saga.GRPCError(code, errBoom)); got != want {
			t.Errorf("gRPC %d is %s, want %s", code, got, want)
		}
	}
}
