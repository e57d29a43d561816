// Package bridge lets package sagatest put handlers of its own in the place of a definition's, without knowing the type
// of its state.
package bridge

import "context"

// Call is an attempt of an action or a compensation.
type Call struct {
	Step    string
	Undo    bool
	Key     string
	Attempt int
	Certain bool
}

// Step is a step of a definition, the branches of a parallel in its place.
type Step struct {
	Name string
	// Kind is step, pivot, retriable or await.
	Kind        string
	Compensates bool
	// Place is the position in the definition: branches of one parallel share it.
	Place int
}

// Handler takes the place of all handlers.
type Handler func(ctx context.Context, c Call) error

// Package saga sets these. def is a saga.Definition, o a *saga.Orchestrator.
var (
	Fake  func(def any, h Handler) (fake any, steps []Step)
	Start func(ctx context.Context, o, fake any, id string) error
)
