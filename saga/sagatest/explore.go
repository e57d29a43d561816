package sagatest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// Fault is what goes wrong at a point of a run.
type Fault string

// The faults.
const (
	// Crash ends the node: nothing that it was about to do happens.
	Crash Fault = "crash"
	// Stall holds the node until its lease has run out; then it goes on, as a zombie.
	Stall Fault = "stall"
	// Error makes the operation fail: before its effect, or after it, as the point says.
	Error Fault = "error"
	// Reject makes the participant refuse.
	Reject Fault = "reject"
	// Duplicate has the message arrive again, much later.
	Duplicate Fault = "duplicate"
	// Never keeps a signal from coming.
	Never Fault = "never"
)

// Choice is a fault at a point, such as "do hotel before #1": the first time that the action of the step hotel is about
// to have its effect.
type Choice struct {
	Point string
	Fault Fault
}

// Plan is what goes wrong in one run.
type Plan []Choice

// String is the plan in the form that ExploreConfig.Replay takes.
func (p Plan) String() string {
	var parts []string
	for _, c := range p {
		parts = append(parts, c.Point+"="+string(c.Fault))
	}
	return strings.Join(parts, "; ")
}

func parsePlan(s string) (p Plan, err error) {
	for part := range strings.SplitSeq(s, ";") {
		point, fault, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return nil, fmt.Errorf("sagatest: %q is no plan: want point=fault; point=fault", s)
		}
		p = append(p, Choice{point, Fault(fault)})
	}
	return p, nil
}

// ExploreConfig tunes Explore. The zero value is useful.
type ExploreConfig struct {
	// Depth is how many faults a run has at most. 0 means 2. Each level multiplies the runs by some hundred.
	Depth int
	// NoBarrier takes the participants' barrier (package saga/barrier) away: they still do nothing twice while it is
	// there, and no longer remember what has been undone. It shows what the barrier is for.
	NoBarrier bool
	// Replay runs one plan, as a failure has printed it, and prints what happens. What two nodes do at the same instant
	// comes in any order, so it is tried up to 20 times.
	Replay string
	// Store makes the store of a run. Nil means sagamem. It must live in the bubble of testing/synctest: no network.
	Store func() saga.Store
	// MaxRuns bounds the runs. 0 means 200,000; reaching it fails the test.
	MaxRuns int
}

// Violation is a broken invariant, and the shortest plan that breaks it.
type Violation struct {
	Plan Plan
	// What says which invariant, and how.
	What string
	// Story is what happened, as a Mermaid sequence diagram.
	Story string
}

// Report says what Explore has found.
type Report struct {
	Runs       int
	Took       time.Duration
	Violations []Violation
}

// Explore runs a definition against a fake world under every schedule of up to Depth faults, and fails the test when an
// invariant breaks: with the shortest plan, a line to replay it, and a picture. The definition's own handlers do not
// run; its steps, budgets and timeouts are what is explored. Time is fake.
//
// The invariants: every saga ends, or is stuck; a completed one has had every effect exactly once; a compensated one
// has left none alive; nothing is compensated once the pivot has had its effect; compensations run in reverse; no write
// under an old fence succeeds; every attempt has the same key; the store knows of every attempt, of compensations too,
// before it runs.
func Explore(t *testing.T, def saga.Definition, cfg ExploreConfig) Report {
	t.Helper()
	r := Search(t, def, cfg)
	for _, v := range r.Violations {
		t.Errorf("%s\nplan: %s\nreplay: sagatest.ExploreConfig{Replay: %q}\n%s", v.What, v.Plan, v.Plan, v.Story)
	}
	t.Logf(
		"sagatest: %s: %d schedules in %v, %d violations", def.Name(), r.Runs, r.Took.Round(time.Millisecond),
		len(r.Violations),
	)
	return r
}

// Search is Explore that does not fail the test for what it finds. It stops after the first level of depth that has
// violations, with at most ten of them.
func Search(t *testing.T, def saga.Definition, cfg ExploreConfig) (r Report) {
	t.Helper()
	if cfg.Depth == 0 {
		cfg.Depth = 2
	}
	if cfg.MaxRuns == 0 {
		cfg.MaxRuns = 200_000
	}
	begin := time.Now()
	defer func() { r.Took = time.Since(begin) }()
	if cfg.Replay != "" {
		plan, err := parsePlan(cfg.Replay)
		if err != nil {
			t.Fatal(err)
		}
		for r.Runs < 20 && len(r.Violations) == 0 {
			r.Runs++
			w := play(t, def, cfg, plan)
			if r.Violations = w.violations(plan); len(r.Violations) > 0 || r.Runs == 20 {
				t.Log(w.story())
			}
		}
		return r
	}
	level := []Plan{nil}
	for depth := 0; len(level) > 0; depth++ {
		var next []Plan
		for _, plan := range level {
			if r.Runs++; r.Runs > cfg.MaxRuns {
				t.Errorf("sagatest: more than %d schedules: explore a smaller definition, or raise MaxRuns", cfg.MaxRuns)
				return r
			}
			w := play(t, def, cfg, plan)
			r.Violations = append(r.Violations, w.violations(plan)...)
			if depth < cfg.Depth {
				next = append(next, w.extend(plan)...)
			}
			if len(r.Violations) >= 10 {
				return r
			}
		}
		if len(r.Violations) > 0 {
			return r
		}
		level = next
	}
	return r
}

// extend returns the plans that add one fault after the last one of the plan.
func (w *world) extend(plan Plan) (out []Plan) {
	from := 0
	if len(plan) > 0 {
		last := plan[len(plan)-1].Point
		from = slices.IndexFunc(w.points, func(p point) bool { return p.name == last }) + 1
	}
	for _, p := range w.points[from:] {
		for _, f := range p.faults {
			out = append(out, append(slices.Clone(plan), Choice{p.name, f}))
		}
	}
	return out
}
