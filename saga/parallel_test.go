package saga_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
)

type seats struct{ List []int }

func TestParallelBranchesMergeOrAreCompensated(t *testing.T) {
	t.Run("merges", func(t *testing.T) {
		def := saga.Define[trip]("trip", 1, saga.Parallel("all",
			saga.Step("hotel", func(_ context.Context, _ *saga.Call, s *trip) error {
				time.Sleep(3 * time.Second)
				s.Hotel = "h"
				return nil
			}),
			saga.Step("car", func(_ context.Context, _ *saga.Call, s *trip) error { s.Car = "c"; return nil })))
		run(t, def, func(t *testing.T, o *saga.Orchestrator, s trip, err error) {
			if err != nil || s.Hotel != "h" || s.Car != "c" {
				t.Errorf("%+v, %v", s, err)
			}
			if b := status(t, o, "t1").Steps[0].Branches; b[0].Status != saga.StepCompleted ||
				b[1].Status != saga.StepCompleted {
				t.Errorf("branches %+v", b)
			}
		})
	})
	checkFailingBranch(t)
	t.Run("a merge of their own", func(t *testing.T) {
		book := func(seat int, d time.Duration) saga.Handler[seats] {
			return func(_ context.Context, _ *saga.Call, s *seats) error {
				time.Sleep(d)
				s.List = append(s.List, seat)
				return nil
			}
		}
		both := func(merge func(base, state, branch seats) (seats, error)) *saga.Def[seats] {
			return saga.Define[seats]("seats", 1, saga.Step("first", book(1, 0)),
				saga.Parallel("all", saga.Step("a", book(2, time.Second)), saga.Step("b", book(3, 0))).Merge(merge))
		}
		union := func(base, state, branch seats) (seats, error) {
			state.List = append(state.List, branch.List[len(base.List):]...)
			slices.Sort(state.List)
			return state, nil
		}
		run(t, both(union), func(t *testing.T, _ *saga.Orchestrator, s seats, err error) {
			if err != nil || !slices.Equal(s.List, []int{1, 2, 3}) {
				t.Errorf("%v, %v", s, err)
			}
		})
		run(t, both(nil), func(t *testing.T, _ *saga.Orchestrator, s seats, err error) { // by fields
			if err == nil || !slices.Equal(s.List, []int{1, 3}) {
				t.Errorf("%v, %v", s, err)
			}
		})
		for name, merge := range map[string]func(base, state, branch seats) (seats, error){
			"boom":     func(_, s, _ seats) (seats, error) { return s, errBoom },
			"panicked": func(_, _, _ seats) (seats, error) { panic(errBoom) },
		} {
			run(t, both(merge), func(t *testing.T, o *saga.Orchestrator, s seats, err error) {
				var f *saga.FailedError
				if !errors.As(err, &f) || !strings.Contains(f.Cause, name) || !slices.Equal(s.List, []int{1}) {
					t.Errorf("%s: %v, %v", name, s, err)
				}
				if b := status(t, o, "t1").Steps[1].Branches; !b[0].InDoubt || !b[1].InDoubt {
					t.Errorf("%s: branches %+v", name, b)
				}
			})
		}
	})
}

// checkFailingBranch checks that a failure waits for the other branches and that all are compensated.
func checkFailingBranch(t *testing.T) {
	t.Helper()
	t.Run("a failure waits for the others, then all are undone", func(t *testing.T) {
		w := &world{}
		def := saga.Define[trip]("trip", 1,
			saga.Step("check", w.do("check")).Compensate(w.undo("check")),
			saga.Parallel("all",
				saga.Step("hotel", func(_ context.Context, _ *saga.Call, s *trip) error {
					time.Sleep(3 * time.Second)
					w.note("hotel")
					return nil
				}).Compensate(w.undo("hotel")),
				saga.Step("car", w.fail("car", saga.Reject(errBoom))).Compensate(w.undo("car"))),
			saga.Pivot("pay", w.do("pay")))
		run(t, def, func(t *testing.T, _ *saga.Orchestrator, _ trip, err error) {
			w.saw(t, "check", "car fails", "hotel", "undo hotel", "undo check")
			var f *saga.FailedError
			if !errors.As(err, &f) || f.Step != "car" || f.Cause != "boom" {
				t.Error(err)
			}
		})
	})
	t.Run("two branches that write one field", func(t *testing.T) {
		set := func(v string, d time.Duration) saga.Handler[trip] {
			return func(_ context.Context, _ *saga.Call, s *trip) error { time.Sleep(d); s.Hotel = v; return nil }
		}
		def := saga.Define[trip]("trip", 1, saga.Parallel("all", saga.Step("a", set("a", 0)),
			saga.Step("b", set("b", time.Second))))
		run(t, def, func(t *testing.T, _ *saga.Orchestrator, s trip, err error) {
			var f *saga.FailedError
			if !errors.As(err, &f) || f.Step != "b" || s.Hotel != "a" {
				t.Errorf("%+v, %v", s, err)
			}
		})
	})
}
