package saga

import (
	"cmp"
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
	kindSleep     kind = "sleep"
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
	// budgetSet says that Retry was called on an await, whose default depends on where it stands.
	budgetSet bool

	undoTimeout  time.Duration
	undoAttempts int
	undoPause    Backoff

	wait      time.Duration // of an await
	reads     func(payload []byte) error
	each      bool // takes several signals
	onTimeout func(ctx context.Context, c *Call, state []byte) ([]byte, error)
	until     func(state []byte) (time.Time, error) // of a sleep

	branches []*node
	atOnce   int                                              // how many branches run at once; 0 means all
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
	if h == nil && k != kindParallel && k != kindSleep {
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

// Node is a part of a definition over the state S: a step, a pivot, a retriable step, an await, a sleep or a parallel.
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
	atOnce  int   // how many of its sagas run at once in an orchestrator; 0 means as many as there are slots
	bound   time.Duration
	err     error
}

// Def is the definition of a saga over the state S, which must encode as JSON.
type Def[S any] struct{ d definition }

// Define defines a saga. What is wrong with it is said by New. Change the version whenever steps are added, removed,
// renamed or reordered.
func Define[S any](name string, version int, nodes ...Node[S]) *Def[S] {
	d := definition{name: name, version: version}
	for _, n := range nodes {
		own := *n.build()
		d.nodes = append(d.nodes, &own)
	}
	d.check()
	return &Def[S]{d}
}

// StopOnFailure leaves the remaining compensations undone when one keeps failing, in place of running them all.
func (d *Def[S]) StopOnFailure() *Def[S] { d.d.stop = true; return d }

// Deadline bounds a saga, from its start on: one that has not begun its pivot by then compensates, as if it were
// cancelled, with ErrDeadline as its cause. Default: no bound.
func (d *Def[S]) Deadline(t time.Duration) *Def[S] {
	if d.d.bound = t; t < 0 {
		d.d.err = cmp.Or(d.d.err, fmt.Errorf("%w: %s: Deadline cannot be negative", ErrDefinition, d.d.name))
	}
	return d
}

// Concurrency bounds the sagas of this definition that run at once in an orchestrator, so that slow ones leave slots to
// those of other definitions. Sagas that wait or sleep do not count. Default: Config.Concurrency.
func (d *Def[S]) Concurrency(n int) *Def[S] {
	if d.d.atOnce = n; n < 0 {
		d.d.err = cmp.Or(d.d.err, fmt.Errorf("%w: %s: Concurrency cannot be negative", ErrDefinition, d.d.name))
	}
	return d
}

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
		d.err = d.checkPlace(i, n)
		for _, m := range append([]*node{n}, n.branches...) {
			d.err = cmp.Or(d.err, d.checkNode(m, seen))
			seen[m.name] = true
			fmt.Fprintf(&shape, "%d/%s/%s/%t;", i, m.kind, m.name, m.undo != nil)
		}
		if d.err != nil {
			return
		}
	}
	sum := sha256.Sum256([]byte(shape.String()))
	d.shape = hex.EncodeToString(sum[:8])
}

// checkNode checks a step by itself.
func (d *definition) checkNode(n *node, seen map[string]bool) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: step %q: "+format, append([]any{ErrDefinition, d.name, n.name}, args...)...)
	}
	switch {
	case n.err != nil:
		return n.err
	case n.name == "" || strings.ContainsAny(n.name, "/#$ \n") || len(n.name) > 100:
		return bad("want a name of 1 to 100 characters without /, #, $ and space")
	case seen[n.name]:
		return bad("another step has the name")
	case n.kind != kindParallel && (n.attempts < 1 || n.timeout <= 0 || n.undoAttempts < 1 || n.undoTimeout <= 0):
		return bad("attempts and timeouts must be positive")
	case n.wait < 0 || n.atOnce < 0:
		return bad("Timeout and Limit cannot be negative")
	case n.onTimeout != nil && n.wait == 0:
		return bad("OnTimeout needs a Timeout")
	case n.each && n.undo != nil:
		return bad("an AwaitEach cannot be compensated")
	}
	return nil
}

// checkPlace checks that a step stands where it may, and notes the place of the pivot.
func (d *definition) checkPlace(i int, n *node) error {
	after := d.pivot < len(d.nodes)
	bad := func(what string) error { return fmt.Errorf("%w: %s: %q %s", ErrDefinition, d.name, n.name, what) }
	branch := kindStep
	switch {
	case n.kind == kindPivot && after:
		return bad("is a second pivot")
	case n.kind == kindPivot:
		d.pivot = i
	case n.kind == kindRetriable && !after:
		return bad("is retriable and stands before any pivot")
	case n.kind == kindStep && after:
		return bad("stands after the pivot and is not retriable")
	case n.kind == kindAwait && after && n.undo != nil:
		return bad("stands after the pivot, where nothing is compensated")
	case n.kind == kindAwait && after && n.wait > 0 && n.onTimeout == nil:
		return bad("stands after the pivot: its Timeout needs OnTimeout")
	case n.kind == kindAwait && after && !n.budgetSet:
		n.attempts, n.pause = patientAttempts, patientPause
	case n.kind == kindParallel && after:
		branch = kindRetriable
	}
	for _, b := range n.branches {
		if b.kind != branch {
			return bad(fmt.Sprintf("has the branch %q: want a %s there", b.name, branch))
		}
	}
	return nil
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
