package breaker_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// A place in the bulkhead is given back whatever Classify does.
func TestAllowWhoseClassifyPanics(t *testing.T) {
	b := breaker.Must(breaker.New(breaker.Config{Bulkhead: 1, Classify: func(context.Context, error) breaker.Outcome {
		panic("classify")
	}}))
	done, err := b.Allow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if p := recover(); p != "classify" {
				t.Errorf("recovered %v", p)
			}
		}()
		done(nil)
	}()
	if _, err := b.Allow(t.Context()); err != nil {
		t.Errorf("after a panic: %v", err)
	}
	if n := b.Counts().Failures; n != 1 {
		t.Errorf("%d failures, want 1", n)
	}
}

// An observing breaker reports what it would have rejected, and no call waits for a place.
func TestObservingTellsOfRejections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := map[string]int{}
		b := breaker.Must(breaker.New(breaker.Config{Failures: 1, ObserveOnly: true, Bulkhead: 1, BulkheadWait: time.Hour,
			Rate: 1, Burst: 2,
			OnCall: func(c breaker.Call) { reported[c.Outcome.String()+c.Rejected]++ }}))
		began := time.Now()
		first, err := b.Allow(t.Context())
		second, err2 := b.Allow(t.Context()) // would find the bulkhead full
		third, err3 := b.Allow(t.Context())  // would be above the rate
		if err := errors.Join(err, err2, err3); err != nil || time.Since(began) != 0 {
			t.Fatalf("%v, after %s", err, time.Since(began))
		}
		first(nil)
		second(nil)
		third(nil)
		time.Sleep(10 * time.Second)
		runs(b, 1, fail)
		runs(b, 1, succeed) // would find it open
		synctest.Wait()
		if reported["ignorefull"] != 1 || reported["ignorelimited"] != 1 || reported["ignoreopen"] != 1 || reported["success"] != 4 ||
			reported["failure"] != 1 {
			t.Error(reported)
		}
	})
}

// What an open breaker turns away is no traffic: it must not pay for retries once the service is back.
func TestRejectionsPayIntoNoBudget(t *testing.T) {
	b := breaker.Must(breaker.New(breaker.Config{Failures: -1, Retry: breaker.Retry{Attempts: 2,
		Backoff: breaker.Exponential(time.Nanosecond, 10*time.Second), Budget: 0.5}}))
	spend := func() (retries int) {
		for range 100 {
			if err := b.Run(t.Context(), fail); errors.Is(err, breaker.ErrBudget) {
				return retries
			}
			retries++
		}
		return retries
	}
	spend()
	b.Open()
	for range 1000 {
		_ = b.Run(t.Context(), succeed)
	}
	b.Close()
	if n := spend(); n > 2 {
		t.Errorf("%d retries after an outage in which nothing was tried", n)
	}
}

func TestErrorsNameTheField(t *testing.T) {
	for field, cfg := range map[string]breaker.Config{
		"Rate":        {Rate: math.NaN()},
		"Burst":       {Rate: 1, Burst: -1},
		"OpenFor":     {OpenFor: -1},
		"Probes":      {Probes: -1},
		"Window":      {Window: -1},
		"FailureRate": {FailureRate: 2},
	} {
		if _, err := breaker.New(cfg); err == nil || !strings.Contains(err.Error(), "Config."+field+" is ") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
