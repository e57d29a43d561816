package saga

import (
	"cmp"
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
func (r *runner) backward(ctx context.Context, stop stopSignal) error {
	n, st := r.def.nodes[r.rec.Cursor], &r.rec.Steps[r.rec.Cursor]
	list := r.undoables(r.rec.Cursor) // branches are undone one after the other, the last one first
	touched := false
	for i := len(list) - 1; i >= 0; i-- {
		u := list[i]
		if u.st.Undone || r.gaveUp(u) {
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
			r.intendUndo()
		case endExhausted:
			u.st.UndoError = cut(res.err.Error())
			if r.def.stop {
				r.finish(Stuck)
				return r.save(ctx)
			}
			r.intendUndo()
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

// undo makes the attempts of one compensation. The intent of each is stored before it runs.
func (r *runner) undo(ctx context.Context, stop stopSignal, u undoable) result {
	refused := 0
	for {
		if !u.st.Undoing {
			u.st.Undoing = true
			u.st.UndoAttempts++
			if err := r.save(ctx); err != nil {
				return result{end: endLost, err: err}
			}
		}
		c := &Call{
			id:      r.rec.ID,
			name:    r.rec.Name,
			step:    u.n.name,
			undo:    true,
			attempt: u.st.UndoAttempts + u.st.UndoTakeovers,
			fence:   r.rec.Fence,
			certain: u.st.Status == StepCompleted,
			failed:  r.rec.FailedStep,
			cause:   r.rec.Cause,
			save:    r.checkpoint,
		}
		state, err := r.attempt(ctx, u.n.undo, u.n.undoTimeout, c)
		if ctx.Err() != nil && err != nil && !errors.Is(context.Cause(ctx), ErrDraining) {
			return result{end: endLost, err: context.Cause(ctx)} // the stored intent says that the attempt was made
		}
		u.st.Undoing = false
		if err == nil {
			return result{end: endDone, state: state}
		}
		if ctx.Err() != nil {
			u.st.UndoAttempts--
			return result{end: endPark}
		}
		u.st.UndoError = cut(err.Error())
		delay := u.n.undoPause.Delay(u.st.UndoAttempts)
		if retryAfter, ok := asNotAttempted(err); ok {
			u.st.UndoAttempts--
			refused++
			delay = cmp.Or(retryAfter, u.n.undoPause.Delay(refused))
		}
		r.o.cfg.Logger.WarnContext(
			ctx, "saga: a compensation failed", "saga", r.rec.Name, "saga_id", r.rec.ID, "step", u.n.name, "attempt", c.attempt,
			"of", u.n.undoAttempts, "error", err,
		)
		if u.st.UndoAttempts >= u.n.undoAttempts {
			return result{end: endExhausted, err: err}
		}
		if delay >= r.o.cfg.ParkAfter || !pause(ctx, stop, delay) {
			return result{end: endPark, delay: delay}
		}
	}
}

// gaveUp reports whether no further attempt of a compensation is made.
func (r *runner) gaveUp(u undoable) bool {
	return u.st.UndoError != "" && !u.st.Undoing &&
		(u.st.UndoAttempts >= u.n.undoAttempts || u.st.UndoTakeovers > r.o.cfg.MaxTakeovers)
}

// undoables returns the step at a position and its branches.
func (r *runner) undoables(position int) []undoable {
	n, st := r.def.nodes[position], &r.rec.Steps[position]
	list := []undoable{{n, st}}
	for i := range n.branches {
		list = append(list, undoable{n.branches[i], &st.Branches[i]})
	}
	return list
}

// intendUndo marks the next compensation as begun, which the next write stores together with the result before it.
func (r *runner) intendUndo() {
	for position := r.rec.Cursor; position >= 0; position-- {
		list := r.undoables(position)
		for i := len(list) - 1; i >= 0; i-- {
			u := list[i]
			if u.st.Undone || r.gaveUp(u) || u.n.undo == nil || u.st.Status != StepCompleted && !u.st.InDoubt {
				continue
			}
			if !u.st.Undoing && u.st.UndoAttempts < u.n.undoAttempts {
				u.st.Undoing = true
				u.st.UndoAttempts++
			}
			return
		}
	}
}

// markUndoInDoubt records that the compensation that the last owner was running ended without a result.
func (r *runner) markUndoInDoubt(ctx context.Context) error {
	for position := range r.rec.Steps {
		for _, u := range r.undoables(position) {
			if !u.st.Undoing {
				continue
			}
			u.st.Undoing = false
			u.st.UndoAttempts--
			u.st.UndoTakeovers++
			u.st.UndoError = "the orchestrator's lease expired during the attempt"
		}
	}
	return r.save(ctx)
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
