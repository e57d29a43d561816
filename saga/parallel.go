package saga

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// parallel runs the branches of n that have not been completed, and stores each result as it comes. It settles all of
// them before it says how it went: no compensation may meet a running action.
func (r *runner) parallel(ctx context.Context, stop stopSignal, n *node, st *StepState) result {
	type ended struct {
		branch int
		st     StepState
		res    result
	}
	base := r.rec.State
	results := make(chan ended, len(n.branches))
	running := 0
	for i := range n.branches {
		if st.Branches[i].Status == StepStarted {
			running++
		}
	}
	for i, b := range n.branches {
		if own := st.Branches[i]; own.Status == StepStarted {
			br := &runner{o: r.o, def: r.def, rec: r.rec} // of the record it only reads what does not change
			go func() {
				res := br.attempts(ctx, stop, b, &own, nil, true)
				results <- ended{i, own, res}
			}()
		}
	}
	var lost error
	out := result{end: endDone}
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
			out = e.res
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
	for _, b := range st.Branches {
		if b.Status == StepFailed && out.end != endPark {
			out = result{end: endExhausted, step: b.Name, err: errors.New(b.Error)}
		}
	}
	out.state = r.rec.State
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
