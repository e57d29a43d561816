package saga

import (
	"context"
	"errors"
)

// undoable is a step, or a branch of one, that has something to undo.
type undoable struct {
	n  *node
	st *StepState
}

// backward makes the compensations of the step at the cursor, and moves the cursor down. When there is no step left
// the saga is Compensated, or Stuck where a compensation kept failing.
func (r *runner) backward(ctx, stop context.Context) error {
	n, st := r.def.nodes[r.rec.Cursor], &r.rec.Steps[r.rec.Cursor]
	list := []undoable{{n, st}}
	for i := range n.branches { // undone after each other, the last one first
		list = append(list, undoable{n.branches[i], &st.Branches[i]})
	}
	touched := false
	for i := len(list) - 1; i >= 0; i-- {
		u := list[i]
		if u.st.Undone || u.st.UndoError != "" && u.st.UndoAttempts >= u.n.undoAttempts {
			continue
		}
		if u.n.undo == nil || u.st.Status != StepCompleted && !u.st.InDoubt {
			u.st.Undone = true
			continue
		}
		touched = true
		res := r.undo(ctx, stop, u)
		switch res.end {
		case endDone:
			u.st.Undone, u.st.Status, u.st.UndoError = true, StepCompensated, ""
			r.rec.State = res.state
		case endExhausted:
			u.st.UndoError = cut(res.err.Error())
			if r.def.stop {
				r.finish(Stuck)
				return r.save(ctx)
			}
		case endPark:
			return r.park(ctx, res.delay)
		case endLost:
			return res.err
		}
		if i > 0 {
			if err := r.save(ctx); err != nil {
				return err
			}
		}
	}
	if n.kind == kindParallel && st.Status != StepNotStarted {
		st.Status = StepCompensated
	}
	r.rec.Cursor--
	if r.rec.Cursor >= 0 {
		if !touched {
			return nil // nothing was done here that must be stored before the next one is undone
		}
		return r.save(ctx)
	}
	r.rec.Cursor = 0
	if len(r.rec.failures()) > 0 {
		r.finish(Stuck)
	} else {
		r.finish(Compensated)
	}
	return r.save(ctx)
}

// undo makes the attempts of one compensation.
func (r *runner) undo(ctx, stop context.Context, u undoable) result {
	for {
		u.st.UndoAttempts++
		c := &Call{id: r.rec.ID, name: r.rec.Name, step: u.n.name, undo: true, attempt: u.st.UndoAttempts, fence: r.rec.Fence,
			certain: u.st.Status == StepCompleted, failed: r.rec.FailedStep, cause: r.rec.Cause, save: r.checkpoint}
		state, err := r.attempt(ctx, u.n.undo, u.n.undoTimeout, c)
		if err == nil {
			return result{end: endDone, state: state}
		}
		if ctx.Err() != nil {
			if errors.Is(context.Cause(ctx), ErrDraining) {
				u.st.UndoAttempts--
				return result{end: endPark}
			}
			return result{end: endLost, err: context.Cause(ctx)}
		}
		u.st.UndoError = cut(err.Error())
		r.o.cfg.Logger.WarnContext(ctx, "saga: a compensation failed", "saga", r.rec.Name, "saga_id", r.rec.ID, "step", u.n.name,
			"attempt", u.st.UndoAttempts, "of", u.n.undoAttempts, "error", err)
		if u.st.UndoAttempts >= u.n.undoAttempts {
			return result{end: endExhausted, err: err}
		}
		delay := u.n.undoPause.Delay(u.st.UndoAttempts)
		if delay >= r.o.cfg.ParkAfter || !pause(ctx, stop, delay) {
			return result{end: endPark, delay: delay}
		}
	}
}

// failures returns what failing compensations said, by step.
func (r Record) failures() map[string]string {
	out := map[string]string{}
	for _, st := range r.Steps {
		for _, s := range append([]StepState{st}, st.Branches...) {
			if s.UndoError != "" && !s.Undone {
				out[s.Name] = s.UndoError
			}
		}
	}
	return out
}
