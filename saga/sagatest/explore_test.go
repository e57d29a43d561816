package sagatest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
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
	await = saga.Define[state]("await", 1,
		saga.Step("a", nothing).Compensate(nothing),
		saga.Await("approval", func(context.Context, *saga.Call, *state, any) error { return nil }).Timeout(time.Hour),
		saga.Pivot("b", nothing))
)

// depth is 2, or 1 where time is short: the race detector makes each run ten times slower.
func depth() int {
	if testing.Short() {
		return 1
	}
	return 2
}

func TestExplore(t *testing.T) {
	for _, def := range []saga.Definition{order, parallel, retriable, await} {
		t.Run(def.Name(), func(t *testing.T) {
			t.Parallel()
			if r := sagatest.Explore(t, def, sagatest.ExploreConfig{Depth: depth()}); r.Runs < 50 {
				t.Errorf("only %d schedules: nothing was explored", r.Runs)
			}
		})
	}
}

// Without a barrier a message that arrives after its compensation leaves its effect behind: nobody undoes it any more.
func TestFindsTheHangingAction(t *testing.T) {
	r := sagatest.Search(t, order, sagatest.ExploreConfig{NoBarrier: true})
	found := false
	for _, v := range r.Violations {
		found = found || strings.Contains(v.What, "compensated, and the effect of step") && strings.Contains(v.Story, "participant: do")
	}
	if !found {
		t.Errorf("%d schedules, %d violations, none of them a hanging action: %v", r.Runs, len(r.Violations), r.Violations)
	}
}

func TestReplay(t *testing.T) {
	r := sagatest.Search(t, order, sagatest.ExploreConfig{NoBarrier: true, Depth: 1})
	if len(r.Violations) == 0 {
		t.Fatal("nothing to replay")
	}
	again := sagatest.Search(t, order, sagatest.ExploreConfig{NoBarrier: true, Replay: r.Violations[0].Plan.String()})
	if len(again.Violations) == 0 || again.Violations[0].What != r.Violations[0].What {
		t.Errorf("replayed %s: %v, want %s", r.Violations[0].Plan, again.Violations, r.Violations[0].What)
	}
}

// careless is a store that keeps its promises less well.
type careless struct {
	saga.Store
	save func(saga.Store, context.Context, saga.Record) error
}

func (c careless) Save(ctx context.Context, r saga.Record) error { return c.save(c.Store, ctx, r) }

// Bugs that are planted in the store, or in what the engine tells it, are found.
func TestFindsPlantedBugs(t *testing.T) {
	for name, save := range map[string]func(saga.Store, context.Context, saga.Record) error{
		"no fence check": func(s saga.Store, ctx context.Context, r saga.Record) error {
			stored, err := s.Get(ctx, r.ID)
			if err != nil {
				return err
			}
			err = s.Save(ctx, r)
			if errors.Is(err, saga.ErrFenced) {
				r.Fence, r.Revision = stored.Fence, stored.Revision
				err = s.Save(ctx, r)
			}
			return err
		},
		"doubt forgotten": func(s saga.Store, ctx context.Context, r saga.Record) error {
			r = r.Clone()
			for i := range r.Steps {
				r.Steps[i].InDoubt = false
			}
			return s.Save(ctx, r)
		},
		"progress forgotten": func(s saga.Store, ctx context.Context, r saga.Record) error {
			if r.Status == saga.Running && r.Cursor == 2 {
				r = r.Clone()
				r.Cursor = 1
			}
			return s.Save(ctx, r)
		},
		"compensation cut short": func(s saga.Store, ctx context.Context, r saga.Record) error {
			if r.Status == saga.Compensating && r.Cursor == 2 {
				r = r.Clone()
				r.Cursor = 0
			}
			return s.Save(ctx, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := sagatest.Search(t, order, sagatest.ExploreConfig{Store: func() saga.Store { return careless{sagamem.New(), save} }})
			if len(r.Violations) == 0 {
				t.Errorf("%d schedules, and the bug was not found", r.Runs)
				return
			}
			t.Logf("found after %d schedules: %s, by %s", r.Runs, r.Violations[0].What, r.Violations[0].Plan)
		})
	}
}
