package sagatest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/saga"
)

// violations returns the invariants that a run has broken.
func (w *world) violations(plan Plan) (out []Violation) {
	broken := slices.Clone(w.broken)
	position := map[string]int{}
	pivot := ""
	for _, s := range w.steps {
		position[s.Name] = s.Position
		if s.Kind == "sleep" { // it has no effect
			continue
		}
		if s.Kind == "pivot" {
			pivot = s.Name
		}
		e := w.effects[s.Name]
		if e == nil {
			e = &effect{}
		}
		alive := e.applied - e.undone
		switch {
		case w.ended.Status == saga.Completed && (e.applied != 1 || e.undone != 0):
			broken = append(
				broken,
				fmt.Sprintf(
					"completed, and step %s has had its effect %d times and was undone %d times", s.Name, e.applied, e.undone,
				),
			)
		case w.ended.Status == saga.Compensated && s.Compensates && alive > 0:
			broken = append(broken, fmt.Sprintf("compensated, and the effect of step %s is alive", s.Name))
		case w.ended.Status == saga.Compensated && s.Kind == "pivot" && alive > 0:
			broken = append(broken, fmt.Sprintf("compensated, and the pivot %s has had its effect", s.Name))
		}
	}
	if i := slices.Index(w.order, "do "+pivot); i >= 0 {
		for _, what := range w.order[i:] {
			if strings.HasPrefix(what, "undo ") {
				broken = append(broken, fmt.Sprintf("%s after the pivot %s", what, pivot))
			}
		}
	}
	last := len(w.steps) + 1
	for _, what := range w.order {
		if step, ok := strings.CutPrefix(what, "undo "); ok {
			if position[step] > last {
				broken = append(broken, fmt.Sprintf("%s out of turn: compensations run in reverse", what))
			}
			last = position[step]
		}
	}
	for what, keys := range w.keys {
		if len(keys) > 1 {
			broken = append(broken, fmt.Sprintf("%s went out under %d keys", what, len(keys)))
		}
	}
	for _, what := range broken {
		out = append(out, Violation{Plan: plan, What: what, Story: w.story()})
	}
	return out
}

// story is a Mermaid sequence diagram of the run.
func (w *world) story() string {
	var b strings.Builder
	b.WriteString("sequenceDiagram\n")
	for i := range w.nodes {
		fmt.Fprintf(&b, "    participant node%d\n", i+1)
	}
	b.WriteString("    participant store\n    participant participant\n    participant network\n    participant world\n")
	for _, l := range w.lines {
		b.WriteString("    " + l + "\n")
	}
	fmt.Fprintf(&b, "    Note over world: ended %s\n", strings.ToLower(string(w.ended.Status)))
	return b.String()
}
