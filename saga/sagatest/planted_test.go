//go:build !race

package sagatest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
	"github.com/sillar-go/sillar/saga/sagatest"
)

// small is quick to explore, and has all that the planted bugs need.
var small = saga.Define[state]("small", 1,
	saga.Step("create", nothing).Compensate(nothing),
	saga.Step("reserve", nothing).Compensate(nothing),
	saga.Pivot("confirm", nothing))

// hasty turns back after one fault, so that the second one can come while it compensates.
var hasty = saga.Define[state]("hasty", 1,
	saga.Step("create", nothing).Compensate(nothing),
	saga.Step("reserve", nothing).Compensate(nothing).Retry(1, saga.Exponential(1, 1)),
	saga.Pivot("confirm", nothing))

// Without a barrier a message that arrives after its compensation leaves its effect behind: nothing undoes it.
func TestFindsTheHangingAction(t *testing.T) {
	r := sagatest.Search(t, small, sagatest.ExploreConfig{NoBarrier: true})
	found := false
	for _, v := range r.Violations {
		found = found || strings.Contains(v.What, "compensated, and the effect of step") &&
			strings.Contains(v.Story, "participant: do")
	}
	if !found {
		t.Errorf("%d schedules, %d violations, none of them a hanging action: %v", r.Runs, len(r.Violations), r.Violations)
	}
}

// What was found is seen when its schedule is played again, save what took a rare order of things at one instant.
func TestReplayFindsTheViolationAgain(t *testing.T) {
	r := sagatest.Search(t, small, sagatest.ExploreConfig{NoBarrier: true})
	if len(r.Violations) == 0 {
		t.Fatal("nothing to replay")
	}
	for _, found := range r.Violations {
		again := sagatest.Search(t, small, sagatest.ExploreConfig{NoBarrier: true, Replay: found.Plan.String()})
		if slices.ContainsFunc(again.Violations, func(v sagatest.Violation) bool { return v.What == found.What }) {
			return
		}
	}
	t.Errorf("none of %d violations is seen again", len(r.Violations))
}

// careless is a store that keeps its promises less well.
type careless struct {
	saga.Store
	save  func(saga.Store, context.Context, saga.Record) error
	claim func(*saga.Claimed)
}

func (c careless) Save(ctx context.Context, r saga.Record) error {
	if c.save == nil {
		return c.Store.Save(ctx, r)
	}
	return c.save(c.Store, ctx, r)
}

func (c careless) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	got, err := c.Store.Claim(ctx, node, kinds, limit)
	for i := range got {
		if c.claim != nil {
			c.claim(&got[i])
		}
	}
	return got, err
}

var planted = map[string]careless{
	"no fence check": {save: func(s saga.Store, ctx context.Context, r saga.Record) error {
		err := s.Save(ctx, r)
		if errors.Is(err, saga.ErrFenced) {
			if stored, gerr := s.Get(ctx, r.ID); gerr == nil {
				r.Fence, r.Revision = stored.Fence, stored.Revision
				err = s.Save(ctx, r)
			}
		}
		return err
	}},
	"takeover not reported": {claim: func(c *saga.Claimed) { c.TakenOver = false }},
	"progress forgotten": {save: func(s saga.Store, ctx context.Context, r saga.Record) error {
		if r.Status == saga.Running && r.Cursor == 1 {
			r = r.Clone()
			r.Cursor = 0
		}
		return s.Save(ctx, r)
	}},
	"compensation cut short": {save: func(s saga.Store, ctx context.Context, r saga.Record) error {
		if r.Status == saga.Compensating && r.Cursor == 2 {
			r = r.Clone()
			r.Cursor = 0
		}
		return s.Save(ctx, r)
	}},
	"a pivot that is compensated": {save: func(s saga.Store, ctx context.Context, r saga.Record) error {
		if r.Status == saga.Completed {
			r = r.Clone()
			r.Status, r.Cursor, r.Owner = saga.Compensating, 2, ""
		}
		return s.Save(ctx, r)
	}},
}

// Bugs that are planted in the store, or in what the engine tells it, are found.
func TestFindsPlantedBugs(t *testing.T) {
	for name, bug := range planted {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			def := small
			if name == "compensation cut short" {
				def = hasty
			}
			r := sagatest.Search(t, def, sagatest.ExploreConfig{Store: func() saga.Store {
				bug := bug
				bug.Store = sagamem.New()
				return bug
			}})
			if len(r.Violations) == 0 {
				t.Errorf("%d schedules, and the bug was not found", r.Runs)
				return
			}
			t.Logf("found after %d schedules: %s, by %q", r.Runs, r.Violations[0].What, r.Violations[0].Plan)
		})
	}
}
