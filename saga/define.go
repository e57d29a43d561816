package saga

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// Handler is the action or the compensation of a step. It changes a copy of the state, which is kept when it returns
// nil. Its context ends with the step's timeout.
type Handler[S any] func(ctx context.Context, c *Call, state *S) error

// Backoff computes the pause after a failed attempt. Make one with Exponential or Constant.
type Backoff = backoff.Backoff

// Exponential returns a Backoff that doubles from initial up to max, with jitter.
func Exponential(initial, max time.Duration) Backoff { //nolint:predeclared // the field's word
	return backoff.Exponential(initial, max)
}

// Constant returns a Backoff that pauses for exactly d after each attempt.
func Constant(d time.Duration) Backoff { return backoff.Constant(d) }

type kind string

const (
	kindStep      kind = "step"
	kindPivot     kind = "pivot"
	kindRetriable kind = "retriable"
	kindAwait     kind = "await"
	kindParallel  kind = "parallel"
)

// node is a step without its state's type: handlers take and return the state as JSON.
type node struct {
	name     string
	kind     kind
	do, undo func(ctx context.Context, c *Call, state []byte) ([]byte, error)
	timeout  time.Duration
	attempts int
	pause    Backoff

	undoTimeout  time.Duration
	undoAttempts int
	undoPause    Backoff

	wait     time.Duration // of an await
	reads    func(payload []byte) error
	branches []*node
	merge    func(base, state, branch []byte) ([]byte, error) // of a parallel's results
	err      error
}

// The default budget of what must not be given up: about four days.
const patientAttempts = 1000

var patientPause = Exponential(200*time.Millisecond, 10*time.Minute)

func newNode[S any](name string, k kind, h Handler[S], attempts int) *node {
	n := &node{
		name:         name,
		kind:         k,
		timeout:      10 * time.Second,
		attempts:     attempts,
		pause:        Exponential(200*time.Millisecond, 30*time.Second),
		undoTimeout:  10 * time.Second,
		undoAttempts: patientAttempts,
		undoPause:    patientPause,
	}
	if k == kindPivot || k == kindRetriable {
		n.pause = patientPause
	}
	if h == nil && k != kindParallel {
		n.err = fmt.Errorf("%w: step %q has no handler", ErrDefinition, name)
		return n
	}
	if h != nil {
		n.do = erase(h)
	}
	return n
}

// erase hides the state's type. The JSON that comes in is never touched: a failed handler leaves no trace.
func erase[S any](h Handler[S]) func(context.Context, *Call, []byte) ([]byte, error) {
	return func(ctx context.Context, c *Call, raw []byte) ([]byte, error) {
		var s S
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("saga: decode the state: %w", err)
		}
		c.encode = func() ([]byte, error) { return json.Marshal(&s) }
		if err := h(ctx, c, &s); err != nil {
			return nil, err
		}
		out, err := json.Marshal(&s)
		if err != nil {
			return nil, fmt.Errorf("saga: encode the state: %w", err)
		}
		return out, nil
	}
}

// Node is a part of a definition over the state S: a step, a pivot, a retriable step, an await or a parallel.
type Node[S any] interface {
	build() *node
	of(S)
}

type part[S any] struct{ n *node }

func (p part[S]) build() *node { return p.n }
func (p part[S]) of(S)         {}

// StepDef is a step that can be compensated.
type StepDef[S any] struct{ part[S] }

// Step is an action. Without Compensate it has nothing to undo, such as a check.
func Step[S any](name string, do Handler[S]) *StepDef[S] {
	return &StepDef[S]{part[S]{newNode(name, kindStep, do, 3)}}
}

// Compensate says how to undo the action. It may run for an action that never had an effect: see Call.Certain.
func (d *StepDef[S]) Compensate(undo Handler[S]) *StepDef[S] {
	if undo != nil {
		d.n.undo = erase(undo)
	}
	return d
}

// Timeout bounds an attempt. Default 10 s. It is cooperative: a handler that ignores its context keeps its slot, which
// is logged and counted by sillar.saga.handlers.overdue.
func (d *StepDef[S]) Timeout(t time.Duration) *StepDef[S] { d.n.timeout = t; return d }

// Retry bounds the attempts of the action. Default 3, from 200 ms on. An attempt in doubt is tried again with the
// same key; a Rejected one is not.
func (d *StepDef[S]) Retry(attempts int, pause Backoff) *StepDef[S] {
	d.n.attempts, d.n.pause = attempts, pause
	return d
}

// CompensateTimeout bounds an attempt of the compensation. Default 10 s.
func (d *StepDef[S]) CompensateTimeout(t time.Duration) *StepDef[S] { d.n.undoTimeout = t; return d }

// CompensateRetry bounds the attempts of the compensation. Then the saga is stuck. Default
// 1,000 with pauses that grow from 200 ms to 10 minutes, which takes about four days.
func (d *StepDef[S]) CompensateRetry(attempts int, pause Backoff) *StepDef[S] {
	d.n.undoAttempts, d.n.undoPause = attempts, pause
	return d
}

// ForwardDef is a step that is never compensated: a pivot or a retriable step.
type ForwardDef[S any] struct{ part[S] }

// Pivot is the step that decides: before it everything can be undone, after it everything is done.
func Pivot[S any](name string, do Handler[S]) *ForwardDef[S] {
	return &ForwardDef[S]{part[S]{newNode(name, kindPivot, do, patientAttempts)}}
}

// Retriable is a step after the pivot.
func Retriable[S any](name string, do Handler[S]) *ForwardDef[S] {
	return &ForwardDef[S]{part[S]{newNode(name, kindRetriable, do, patientAttempts)}}
}

// Timeout bounds an attempt. Default 10 s.
func (d *ForwardDef[S]) Timeout(t time.Duration) *ForwardDef[S] { d.n.timeout = t; return d }

// Retry bounds the attempts; then the saga is stuck. Default 1,000 with pauses that grow from 200 ms to 10
// minutes, which takes about four days.
func (d *ForwardDef[S]) Retry(attempts int, pause Backoff) *ForwardDef[S] {
	d.n.attempts, d.n.pause = attempts, pause
	return d
}

// AwaitDef waits for a signal.
type AwaitDef[S any] struct{ part[S] }

// Await waits for a signal of the step's name, and then runs on with its payload. A signal that comes before the wait
// is kept; one that comes twice counts once.
func Await[P, S any](name string, on func(ctx context.Context, c *Call, state *S, payload P) error) *AwaitDef[S] {
	var h Handler[S]
	if on != nil {
		h = func(ctx context.Context, c *Call, state *S) error {
			var p P
			if err := json.Unmarshal(c.payload, &p); err != nil {
				return Reject(fmt.Errorf("saga: signal %s does not decode: %w", name, err))
			}
			return on(ctx, c, state, p)
		}
	}
	n := newNode(name, kindAwait, h, 3)
	n.reads = func(payload []byte) error { return json.Unmarshal(payload, new(P)) }
	return &AwaitDef[S]{part[S]{n}}
}

// Timeout bounds the wait; then the saga compensates. Default: no bound.
func (d *AwaitDef[S]) Timeout(t time.Duration) *AwaitDef[S] { d.n.wait = t; return d }

// Compensate says how to undo what the handler did.
func (d *AwaitDef[S]) Compensate(undo Handler[S]) *AwaitDef[S] {
	if undo != nil {
		d.n.undo = erase(undo)
	}
	return d
}

// ParallelDef runs steps at the same time.
type ParallelDef[S any] struct{ part[S] }

// Parallel runs the branches at the same time, each on its own copy of the state. Their changes are merged by the
// state's top-level JSON fields; two branches that change the same field are an ErrMerge, unless Merge says what to do.
// When one fails the others are let finish, and then all are compensated, the last one first.
func Parallel[S any](name string, branches ...*StepDef[S]) *ParallelDef[S] {
	n := newNode[S](name, kindParallel, nil, 1)
	n.merge = mergeFields
	for _, b := range branches {
		n.branches = append(n.branches, b.n)
	}
	if len(branches) == 0 {
		n.err = fmt.Errorf("%w: parallel %q has no branches", ErrDefinition, name)
	}
	return &ParallelDef[S]{part[S]{n}}
}

// Merge puts the result of a branch into the state: base is the state that the branch began with, branch what it made
// of it, state what the branches that ended before made of it. Branches end in any order: the result must not depend on
// it. An error or a panic leaves the branch in doubt, and the saga compensates. Default: by top-level JSON fields.
func (d *ParallelDef[S]) Merge(merge func(base, state, branch S) (S, error)) *ParallelDef[S] {
	if merge == nil {
		return d
	}
	d.n.merge = func(base, state, branch []byte) (raw []byte, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("saga: the merge panicked: %v", p)
			}
		}()
		var in [3]S
		for i, raw := range [][]byte{base, state, branch} {
			if err := json.Unmarshal(raw, &in[i]); err != nil {
				return nil, fmt.Errorf("saga: decode the state: %w", err)
			}
		}
		out, err := merge(in[0], in[1], in[2])
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	}
	return d
}

// Definition is a saga that New can register: a *Def.
type Definition interface {
	// Name and Version tell definitions apart.
	Name() string
	Version() int
	// Mermaid draws the definition as a flowchart, coloured by an instance where one is given.
	Mermaid(overlay ...Record) string
	// Steps describes the steps.
	Steps() []StepInfo
	definition() *definition
}

type definition struct {
	name    string
	version int
	nodes   []*node
	pivot   int // place of the pivot; len(nodes) where there is none
	shape   string
	stop    bool
	resumes []int // older versions whose sagas it finishes
	err     error
}

// Def is the definition of a saga over the state S, which must encode as JSON.
type Def[S any] struct{ d definition }

// Define defines a saga. What is wrong with it is said by New. Change the version whenever steps are added, removed,
// renamed or reordered.
func Define[S any](name string, version int, nodes ...Node[S]) *Def[S] {
	d := definition{name: name, version: version}
	for _, n := range nodes {
		d.nodes = append(d.nodes, n.build())
	}
	d.check()
	return &Def[S]{d}
}

// StopOnFailure leaves the remaining compensations undone when one keeps failing, in place of running them all.
func (d *Def[S]) StopOnFailure() *Def[S] { d.d.stop = true; return d }

// ResumesFrom lets this version finish sagas that older ones have begun. Steps are matched by name: those that a saga
// has begun must still be there, in the same order. What this version has added before the place where a saga stands is
// not run for it. The state must still decode.
func (d *Def[S]) ResumesFrom(versions ...int) *Def[S] {
	d.d.resumes = append(d.d.resumes, versions...)
	return d
}

// Name returns the name.
func (d *Def[S]) Name() string { return d.d.name }

// Version returns the version.
func (d *Def[S]) Version() int { return d.d.version }

func (d *Def[S]) definition() *definition { return &d.d }

func (d *definition) check() {
	d.pivot = len(d.nodes)
	if d.name == "" || d.version < 1 || len(d.nodes) == 0 {
		d.err = fmt.Errorf("%w: %q needs a name, a version of at least 1, and steps", ErrDefinition, d.name)
		return
	}
	seen := map[string]bool{}
	var shape strings.Builder
	for i, n := range d.nodes {
		for _, m := range append([]*node{n}, n.branches...) {
			switch {
			case m.err != nil:
				d.err = m.err
			case m.name == "" || strings.ContainsAny(m.name, "/$ \n") || len(m.name) > 100:
				d.err = fmt.Errorf(
					"%w: %s: step name %q: want 1 to 100 characters without /, $ and space", ErrDefinition, d.name, m.name,
				)
			case seen[m.name]:
				d.err = fmt.Errorf("%w: %s: two steps are called %q", ErrDefinition, d.name, m.name)
			case m.kind != kindParallel && (m.attempts < 1 || m.timeout <= 0 || m.undoAttempts < 1 || m.undoTimeout <= 0):
				d.err = fmt.Errorf("%w: %s: step %q: attempts and timeouts must be positive", ErrDefinition, d.name, m.name)
			}
			seen[m.name] = true
			fmt.Fprintf(&shape, "%d/%s/%s/%t;", i, m.kind, m.name, m.undo != nil)
		}
		switch {
		case n.kind == kindPivot && d.pivot < len(d.nodes):
			d.err = fmt.Errorf("%w: %s: %q is a second pivot", ErrDefinition, d.name, n.name)
		case n.kind == kindPivot:
			d.pivot = i
		case n.kind == kindRetriable && d.pivot == len(d.nodes):
			d.err = fmt.Errorf("%w: %s: retriable step %q stands before any pivot", ErrDefinition, d.name, n.name)
		case n.kind != kindRetriable && d.pivot < i:
			d.err = fmt.Errorf("%w: %s: %q stands after the pivot and is not retriable", ErrDefinition, d.name, n.name)
		}
		if d.err != nil {
			return
		}
	}
	sum := sha256.Sum256([]byte(shape.String()))
	d.shape = hex.EncodeToString(sum[:8])
}

func (d *definition) freshSteps() []StepState {
	steps := make([]StepState, len(d.nodes))
	for i, n := range d.nodes {
		steps[i] = StepState{Name: n.name, Status: StepNotStarted}
		for _, b := range n.branches {
			steps[i].Branches = append(steps[i].Branches, StepState{Name: b.name, Status: StepNotStarted})
		}
	}
	return steps
}
