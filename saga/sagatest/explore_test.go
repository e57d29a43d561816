package sagatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagatest"
)

type state struct{}

func nothing(context.Context, *saga.Call, *state) error { return nil }

var (
	order = saga.Define[state]("order", 1,
		saga.Step("create", nothing).Compensate(nothing),
		saga.Step("check", nothing),
		saga.Step("reserve", nothing).Compensate(nothing),
		saga.Step("pay", nothing).Compensate(nothing),
		saga.Pivot("confirm", nothing),
		saga.Retriable("commit", nothing))
	parallel = saga.Define[state]("parallel", 1,
		saga.Step("a", nothing).Compensate(nothing),
		saga.Parallel("both", saga.Step("b", nothing).Compensate(nothing), saga.Step("c", nothing).Compensate(nothing)),
		saga.Pivot("d", nothing))
	retriable = saga.Define[state]("retriable", 1,
		saga.Pivot("a", nothing).Retry(2, saga.Exponential(time.Second, time.Second)),
		saga.Retriable("b", nothing),
		saga.Retriable("c", nothing))
	four = saga.Define[state]("four", 1,
		saga.Step("a", nothing).Compensate(nothing),
		saga.Step("b", nothing).Compensate(nothing),
		saga.Step("c", nothing).Compensate(nothing),
		saga.Pivot("d", nothing))
	await = saga.Define[state]("await", 1,
		saga.Step("a", nothing).Compensate(nothing),
		saga.Await("approval", func(context.Context, *saga.Call, *state, any) error { return nil }).Timeout(time.Hour),
		saga.Pivot("b", nothing))
	// waits has each kind of wait before and after the pivot.
	waits = saga.Define[state]("waits", 1,
		saga.Step("a", nothing).Compensate(nothing),
		saga.Sleep[state]("cool-off", time.Minute),
		saga.Await("approval", taken).Timeout(time.Minute).OnTimeout(nothing).Compensate(nothing),
		saga.Pivot("b", nothing),
		saga.Await("shipped", taken).Timeout(time.Minute).OnTimeout(nothing))
	collect = saga.Define[state]("collect", 1,
		saga.Step("a", nothing).Compensate(nothing),
		saga.AwaitEach("parcels", func(context.Context, *saga.Call, *state,
			any) (bool, error) {
			return true, nil
		}).Timeout(time.Minute),
		saga.Pivot("b", nothing)).Deadline(2 * time.Minute)
	after = saga.Define[state]("after", 1,
		saga.Pivot("a", nothing),
		saga.Parallel("both", saga.Retriable("b", nothing), saga.Retriable("c", nothing)).Limit(1))
)

func taken(context.Context, *saga.Call, *state, any) error { return nil }

// depth is how many faults a schedule has; the race detector, which makes each some ten times slower, lowers it.
var depth = 2

func TestExploreFindsNoViolation(t *testing.T) {
	for _, def := range []saga.Definition{order, four, parallel, retriable, await, waits, collect, after} {
		t.Run(def.Name(), func(t *testing.T) {
			t.Parallel()
			if r := sagatest.Explore(t, def, sagatest.ExploreConfig{Depth: depth}); r.Runs < 30 {
				t.Errorf("only %d schedules: nothing was explored", r.Runs)
			}
		})
	}
}
