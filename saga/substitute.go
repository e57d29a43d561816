package saga

import (
	"context"
	"encoding/json"
	"time"
)

// StepInfo describes a step of a definition. A branch of a Parallel is a step.
type StepInfo struct {
	Name string
	// Kind is "step", "pivot", "retriable", "await", "await-each" or "sleep".
	Kind string
	// Compensates reports whether the step has a compensation.
	Compensates bool
	// Position is the place of the step in the definition. The branches of one Parallel share it.
	Position int
}

// Steps returns the steps of the definition in order. A Parallel is listed as its branches.
func (d *Def[S]) Steps() []StepInfo {
	var steps []StepInfo
	for i, n := range d.d.nodes {
		for _, m := range n.leaves() {
			steps = append(steps, StepInfo{Name: m.name, Kind: m.described(), Compensates: m.undo != nil, Position: i})
		}
	}
	return steps
}

func (n *node) described() string {
	if n.each {
		return "await-each"
	}
	return string(n.kind)
}

// leaves returns the branches of a Parallel, and any other node itself.
func (n *node) leaves() []*node {
	if n.kind == kindParallel {
		return n.branches
	}
	return []*node{n}
}

// Substitute returns a definition with the steps, budgets and timeouts of def that calls h in place of every action
// and every compensation. It is for tests of a definition, such as package sagatest. The state passes through
// unchanged; signals of any payload are accepted, and every sleep takes a minute.
func Substitute(def Definition, h func(ctx context.Context, c *Call) error) *Def[json.RawMessage] {
	d := *def.definition()
	d.nodes = substituteNodes(d.nodes, h)
	return &Def[json.RawMessage]{d}
}

func substituteNodes(nodes []*node, h func(ctx context.Context, c *Call) error) []*node {
	call := func(ctx context.Context, c *Call, state []byte) ([]byte, error) {
		c.encode = func() ([]byte, error) { return state, nil }
		c.done = true // the first signal of an AwaitEach ends it
		return state, h(ctx, c)
	}
	var out []*node
	for _, n := range nodes {
		copied := *n
		copied.branches = substituteNodes(n.branches, h)
		if n.do != nil {
			copied.do = call
		}
		if n.undo != nil {
			copied.undo = call
		}
		if n.onTimeout != nil {
			copied.onTimeout = call
		}
		if n.until != nil {
			copied.until = func([]byte) (time.Time, error) { return time.Now().Add(time.Minute).UTC(), nil }
		}
		if n.reads != nil {
			copied.reads = func([]byte) error { return nil }
		}
		out = append(out, &copied)
	}
	return out
}
