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
)

// depth is how many faults a schedule has; the race detector, which makes each some ten times slower, lowers it.
var depth = 2

func TestExplore(t *testing.T) {
	for _, def := range []saga.Definition{order, four, parallel, retriable, await} {
		t.Run(def.Name(), func(t *testing.T) {
			t.Parallel()
			if r := sagatest.Explore(t, def, sagatest.ExploreConfig{Depth: depth}); r.Runs < 30 {
				t.Errorf("only %d schedules: nothing was explored", r.Runs)
			}
		})
	}
}
