package saga

import (
	"context"

	"github.com/sillar-go/sillar/saga/internal/bridge"
)

// faked is a definition whose handlers are package sagatest's.
type faked struct{ Def[struct{}] }

func init() {
	bridge.Fake = func(def any, h bridge.Handler) (any, []bridge.Step) {
		d := *def.(Definition).definition()
		d.nodes = nil
		var steps []bridge.Step
		var fake func(place int, n *node) *node
		fake = func(place int, n *node) *node {
			out := *n
			out.branches = nil
			for _, b := range n.branches {
				out.branches = append(out.branches, fake(place, b))
			}
			if n.kind == kindParallel {
				return &out
			}
			steps = append(steps, bridge.Step{Name: n.name, Kind: string(n.kind), Compensates: n.undo != nil, Place: place})
			call := func(ctx context.Context, c *Call, state []byte) ([]byte, error) {
				c.encode = func() ([]byte, error) { return state, nil }
				return state, h(ctx, bridge.Call{Step: c.step, Undo: c.undo, Key: c.Key(), Attempt: c.attempt, Certain: c.certain})
			}
			out.do = call
			if n.undo != nil {
				out.undo = call
			}
			return &out
		}
		for i, n := range def.(Definition).definition().nodes {
			d.nodes = append(d.nodes, fake(i, n))
		}
		return &faked{Def[struct{}]{d}}, steps
	}
	bridge.Start = func(ctx context.Context, o, f any, id string) error {
		_, err := f.(*faked).Start(ctx, o.(*Orchestrator), id, struct{}{})
		return err
	}
}
