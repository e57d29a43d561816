package saga

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// ParallelDef runs steps at the same time.
type ParallelDef[S any] struct{ part[S] }

// Parallel runs the branches at the same time, each on its own copy of the state. Before the pivot the branches are
// made by Step, after it by Retriable. Their changes are merged by the state's top-level JSON fields; two branches that
// change the same field are an ErrMerge, unless Merge decides. When a branch fails, the others finish first; then
// all are compensated, the last one first, or, after the pivot, the saga is stuck.
func Parallel[S any](name string, branches ...Node[S]) *ParallelDef[S] {
	n := newNode[S](name, kindParallel, nil, 1)
	n.merge = mergeFields
	for _, b := range branches {
		n.branches = append(n.branches, b.build())
	}
	if len(branches) == 0 {
		n.err = fmt.Errorf("%w: parallel %q has no branches", ErrDefinition, name)
	}
	return &ParallelDef[S]{part[S]{n}}
}

// Limit bounds how many branches run at once. Default: all of them.
func (d *ParallelDef[S]) Limit(n int) *ParallelDef[S] { d.n.atOnce = n; return d }

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

// parallel runs the branches of n that have not been completed, and stores each result as it comes. It settles all of
// them before it says how it went: no compensation may meet a running action. A branch whose next attempt is far off
// is left until then; the saga waits in the store when no other branch runs.
func (r *runner) parallel(ctx context.Context, stop stopSignal, n *node, st *StepState) result {
	type ended struct {
		branch int
		st     StepState
		res    result
	}
	base := r.rec.State
	results := make(chan ended, len(n.branches))
	places := make(chan struct{}, cmp.Or(n.atOnce, len(n.branches)))
	running, now := 0, time.Now()
	for i, b := range n.branches {
		own := st.Branches[i]
		if own.Status != StepStarted || now.Before(own.RetryAt) {
			continue
		}
		running++
		br := &runner{o: r.o, def: r.def, rec: r.rec} // of the record it only reads what does not change
		go func() {
			places <- struct{}{}
			defer func() { <-places }()
			if stop.given() {
				results <- ended{i, own, result{end: endPark}}
				return
			}
			res := br.attempts(ctx, stop, b, &own, attemptOf{do: b.do, branch: true})
			results <- ended{i, own, res}
		}()
	}
	var lost error
	for range running {
		e := <-results
		switch e.res.end {
		case endDone:
			merged, err := n.merge(base, r.rec.State, e.res.state)
			if err != nil {
				e.st.Status, e.st.InDoubt = StepFailed, true
				e.st.Error = cut(fmt.Sprintf("%v: branch %s", err, e.st.Name))
				break
			}
			e.st.Status, e.st.Error = StepCompleted, ""
			r.rec.State = merged
		case endRejected, endExhausted:
			e.st.Status, e.st.Error = StepFailed, cut(e.res.err.Error())
		case endPark:
			e.st.RetryAt = time.Now().Add(e.res.delay).UTC()
		case endLost:
			lost = e.res.err
		}
		st.Branches[e.branch] = e.st
		if lost == nil && e.res.end != endPark {
			lost = r.save(ctx)
		}
	}
	if lost != nil {
		return result{end: endLost, err: lost}
	}
	return settled(st, r.rec.State)
}

// settled is the result of a parallel none of whose branches runs.
func settled(st *StepState, state []byte) result {
	out := result{end: endDone, state: state}
	var retryAt time.Time
	for _, b := range st.Branches {
		switch {
		case b.Status == StepStarted && (retryAt.IsZero() || b.RetryAt.Before(retryAt)):
			retryAt = b.RetryAt
		case b.Status == StepFailed:
			out = result{end: endExhausted, step: b.Name, err: errors.New(b.Error)}
		}
	}
	if !retryAt.IsZero() {
		return result{end: endPark, delay: time.Until(retryAt)}
	}
	return out
}

// mergeFields puts what a branch changed between base and its result into state, by top-level fields. A field that
// another branch has changed too, and differently, is ErrMerge.
func mergeFields(base, state, branch []byte) ([]byte, error) {
	var b, s, n map[string]json.RawMessage
	for _, in := range []struct {
		raw  []byte
		into *map[string]json.RawMessage
	}{{base, &b}, {state, &s}, {branch, &n}} {
		if err := json.Unmarshal(in.raw, in.into); err != nil {
			if bytes.Equal(base, branch) {
				return state, nil
			}
			return nil, fmt.Errorf("%w: the state is no JSON object", ErrMerge)
		}
	}
	keys := maps.Clone(b)
	maps.Copy(keys, n)
	for k := range keys {
		if bytes.Equal(b[k], n[k]) {
			continue
		}
		if !bytes.Equal(b[k], s[k]) && !bytes.Equal(s[k], n[k]) {
			return nil, fmt.Errorf("%w: %s", ErrMerge, k)
		}
		if v, ok := n[k]; ok {
			s[k] = v
		} else {
			delete(s, k)
		}
	}
	return json.Marshal(s)
}
