package saga

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stuck lists sagas that wait for an operator.
func (o *Orchestrator) Stuck(ctx context.Context, f Filter) ([]Record, error) {
	f.Statuses = []Status{Stuck}
	return o.store.List(ctx, f)
}

// Cancel compensates the steps of a saga that has not come to its pivot. Cancelling twice is once. The
// error is ErrPastPivot, ErrFinished or ErrNotFound.
func (o *Orchestrator) Cancel(ctx context.Context, id string) error {
	_, err := o.store.Signal(ctx, id, cancelSignal, func(r Record) ([]byte, error) {
		d := o.defs[Kind{r.Name, r.Version}]
		if d == nil {
			return nil, fmt.Errorf("%w: %s version %d", ErrUnknown, r.Name, r.Version)
		}
		atPivot := r.Cursor == d.pivot && (r.Owner != "" || r.Steps[r.Cursor].Status != StepNotStarted)
		past := r.Status == Stuck && r.forwardStuck(d) || r.Status == Running && (r.Cursor > d.pivot || atPivot)
		if past {
			return nil, ErrPastPivot
		}
		return []byte("true"), nil
	})
	if err != nil {
		return fmt.Errorf("saga: cancel %s: %w", id, err)
	}
	o.wake()
	return nil
}

// Retry lets a stuck saga go on where it stopped, with fresh attempts: forward after the pivot, else with the failed
// compensations.
func (o *Orchestrator) Retry(ctx context.Context, id, actor string) error {
	return o.amend(ctx, id, Audit{Actor: actor, Action: "retry"}, func(d *definition, r *Record) error {
		if r.Cause != "" && r.forwardStuck(d) {
			st := &r.Steps[r.Cursor]
			st.Status, st.Attempts, st.Takeovers = StepStarted, 0, 0
			for i := range st.Branches {
				if b := &st.Branches[i]; b.Status != StepCompleted {
					b.Status, b.Attempts, b.Takeovers, b.RetryAt = StepStarted, 0, 0, time.Time{}
				}
			}
			r.Status, r.FailedStep, r.Cause = Running, "", ""
			return nil
		}
		r.Status, r.Cursor = Compensating, r.highest()
		for i := range r.Steps {
			r.Steps[i].UndoAttempts, r.Steps[i].UndoTakeovers, r.Steps[i].Undoing = 0, 0, false
			for j := range r.Steps[i].Branches {
				b := &r.Steps[i].Branches[j]
				b.UndoAttempts, b.UndoTakeovers, b.Undoing = 0, 0, false
			}
		}
		return nil
	})
}

// RetryAll retries the stuck sagas that f selects, all pages of them, and returns how many. f.Limit is the size of a
// page. Sagas that cannot be retried are skipped and reported in the error.
func (o *Orchestrator) RetryAll(ctx context.Context, f Filter, actor string) (retried int, err error) {
	var failed []error
	for {
		page, err := o.Stuck(ctx, f)
		if err != nil || len(page) == 0 {
			return retried, errors.Join(append(failed, err)...)
		}
		f = f.Next(page)
		for _, r := range page {
			if err := o.Retry(ctx, r.ID, actor); err != nil {
				failed = append(failed, err)
				continue
			}
			retried++
		}
	}
}

// forwardStuck says whether the saga stopped on its way forward: at or after the pivot, where nothing is compensated.
func (r *Record) forwardStuck(d *definition) bool {
	return len(r.failures()) == 0 && r.Cursor >= d.pivot && r.Cursor < len(r.Steps)
}

// highest returns the last step that was started.
func (r *Record) highest() int {
	for i := len(r.Steps) - 1; i > 0; i-- {
		if r.Steps[i].Status != StepNotStarted {
			return i
		}
	}
	return 0
}

// Skip lets a stuck saga go on as if the step, or its failed compensation, had succeeded: for an operator who has done
// its work manually. The record keeps the operator and the reason.
func (o *Orchestrator) Skip(ctx context.Context, id, step, actor, reason string) error {
	if reason == "" {
		return errors.New("saga: skip needs a reason")
	}
	return o.amend(
		ctx,
		id,
		Audit{Actor: actor, Action: "skip", Step: step, Reason: reason},
		func(d *definition, r *Record) error {
			if r.forwardStuck(d) {
				return r.skipForward(step)
			}
			for i := range r.Steps {
				list := []*StepState{&r.Steps[i]}
				for j := range r.Steps[i].Branches {
					list = append(list, &r.Steps[i].Branches[j])
				}
				for _, st := range list {
					if st.Name == step && st.UndoError != "" && !st.Undone {
						st.Undone, st.Status = true, StepCompensated
						r.Status, r.Cursor = Compensating, r.highest()
						return nil
					}
				}
			}
			return fmt.Errorf("%w: no compensation of %s has failed in %s", ErrStep, step, id)
		},
	)
}

// skipForward marks the step, or the branch, at which a saga is stuck after its pivot as completed.
func (r *Record) skipForward(step string) error {
	st := &r.Steps[r.Cursor]
	at := r.FailedStep
	left := 0
	for i := range st.Branches {
		b := &st.Branches[i]
		if b.Name == step && b.Status == StepFailed {
			b.Status, at = StepCompleted, step
		}
		if b.Status != StepCompleted {
			left++
		}
	}
	if at != step && st.Name != step {
		return fmt.Errorf("%w: %s is stuck at %s, not at %s", ErrStep, r.ID, at, step)
	}
	r.Status, r.FailedStep, r.Cause = Running, "", ""
	if left > 0 && st.Name != step { // the other branches go on
		st.Status = StepStarted
		for i := range st.Branches {
			if b := &st.Branches[i]; b.Status == StepFailed {
				b.Status, b.Attempts, b.Takeovers = StepStarted, 0, 0
			}
		}
		return nil
	}
	st.Status = StepCompleted
	if r.Cursor++; r.Cursor == len(r.Steps) {
		r.Status = Completed
	}
	return nil
}

// amend changes a stuck saga, which has no owner.
func (o *Orchestrator) amend(ctx context.Context, id string, a Audit, change func(*definition, *Record) error) error {
	if a.Actor == "" {
		return fmt.Errorf("saga: %s needs an actor", a.Action)
	}
	r, err := o.store.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("saga: %s %s: %w", a.Action, id, err)
	}
	if r.Status != Stuck {
		return fmt.Errorf("%w: %s is %s", ErrNotStuck, id, r.Status)
	}
	d := o.defs[Kind{r.Name, r.Version}]
	if d == nil {
		return fmt.Errorf("%w: %s version %d", ErrUnknown, r.Name, r.Version)
	}
	if err := change(d, &r); err != nil {
		return err
	}
	a.At = time.Now().UTC()
	r.Audit = append(r.Audit, a)
	r.Owner, r.WakeAt = "", a.At
	err = o.store.Save(ctx, r)
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrSignalled) {
		return fmt.Errorf("%w: %s", ErrBusy, id)
	}
	if err != nil {
		return fmt.Errorf("saga: %s %s: %w", a.Action, id, err)
	}
	r.Revision++
	o.changed(ctx, r)
	o.wake()
	return nil
}

// Delete deletes a saga that has ended, with its history, such as to erase a person's data. A stuck saga can be deleted
// too. A saga that is started with its id later is a new one. The error is ErrUnfinished or ErrNotFound.
func (o *Orchestrator) Delete(ctx context.Context, id string) error {
	if err := o.store.Delete(ctx, id); err != nil {
		return fmt.Errorf("saga: delete %s: %w", id, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last.forget(id)
	return nil
}

// pruneAtOnce is how many sagas Prune deletes in a transaction: few enough not to block other transactions for long.
const pruneAtOnce = 500

// Prune deletes sagas that were completed or compensated before a time, with their history, and returns how many. It
// can be stopped and called again. A saga whose id is used once more after that is a new one: keep ids at least as long
// as callers may repeat a start. What is stuck stays.
func (o *Orchestrator) Prune(ctx context.Context, before time.Time) (pruned int64, err error) {
	for {
		n, err := o.store.Prune(ctx, before, pruneAtOnce)
		pruned += int64(n)
		if err != nil {
			return pruned, fmt.Errorf("saga: prune: %w", err)
		}
		if n < pruneAtOnce {
			return pruned, nil
		}
	}
}
