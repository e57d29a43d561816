package saga

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
)

// parallel runs the branches of n that have not been completed, and stores each result as it comes. It settles all of
// them before it says how it went: no compensation may meet a running action.
func (r *runner) parallel(ctx, stop context.Context, n *node, st *StepState) result {
	base := r.rec.State
	var (
		mu    sync.Mutex // guards r.rec while branches run
		wg    sync.WaitGroup
		ends  = make([]result, len(n.branches))
		saved error
	)
	for i, b := range n.branches {
		if st.Branches[i].Status == StepCompleted || st.Branches[i].Status == Failed {
			continue
		}
		st.Branches[i].Status = Started
		wg.Go(func() {
			mu.Lock()
			own := st.Branches[i]
			br := &runner{o: r.o, def: r.def, rec: r.rec} // reads a record that the others do not change
			br.rec.State = base
			mu.Unlock()
			res := br.attempts(ctx, stop, b, &own, nil, true)
			mu.Lock()
			defer mu.Unlock()
			switch res.end {
			case endDone:
				merged, err := merge(base, r.rec.State, res.state)
				if err != nil {
					own.InDoubt = true
					res = result{end: endExhausted, err: fmt.Errorf("%w: branch %s", err, b.name)}
					own.Status, own.Error = Failed, res.err.Error()
					break
				}
				own.Status, own.Error = StepCompleted, ""
				r.rec.State = merged
			case endRejected, endExhausted:
				own.Status, own.Error = Failed, cut(res.err.Error())
			}
			ends[i] = res
			st.Branches[i] = own
			if res.end != endLost && res.end != endPark && saved == nil {
				saved = r.save(ctx)
			}
		})
	}
	wg.Wait()
	if saved != nil {
		return result{end: endLost, err: saved}
	}
	out := result{end: endDone}
	for i, res := range ends {
		switch b := st.Branches[i]; {
		case res.end == endLost:
			return res
		case b.Status == Failed && out.end != endPark:
			out = result{end: endExhausted, step: b.Name, err: fmt.Errorf("%s", b.Error)}
		case res.end == endPark:
			out = res
		}
	}
	out.state = r.rec.State
	return out
}

// merge puts what a branch changed between base and its result into state, by top-level fields. A field that another
// branch has changed too, and differently, is ErrMerge.
func merge(base, state, branch []byte) ([]byte, error) {
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
