package saga

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/errclass"
)

// runner drives one saga that the orchestrator owns. It is used by one goroutine, save where Parallel says so.
type runner struct {
	o     *Orchestrator
	def   *definition
	rec   Record
	owner string // under which the saga runs
}

func newRunner(o *Orchestrator, r Record) *runner {
	return &runner{o: o, def: o.defs[Kind{r.Name, r.Version}], rec: r, owner: r.Owner}
}

// cancelSignal is the name under which a cancellation is kept. No step can have it.
const cancelSignal = "$cancel"

// drive goes on until the saga ends, parks, or is not ours any more, and reports false when it may still be ours. life
// ends with the lease, and is what handlers run under; when stop ends, nothing new is begun.
func (r *runner) drive(life context.Context, stop stopSignal, takenOver bool) (done bool) {
	ctx := r.o.cfg.Propagator.Extract(life, propagation.MapCarrier(r.rec.Headers))
	ctx, span := r.o.tel.saga(ctx, r.rec)
	defer span.End()
	if err := r.def.adopt(&r.rec); err != nil {
		r.o.cfg.Logger.ErrorContext(ctx, "saga: the stored saga does not fit the registered definition, and is left alone",
			"saga", r.rec.Name, "saga_id", r.rec.ID, "version", r.rec.Version, "error", err)
		return errors.Is(r.park(ctx, time.Minute), errStop)
	}
	err := r.begin(ctx, takenOver)
	for err == nil {
		if r.rec.Status.Ended() {
			return true
		}
		if stop.given() {
			err = r.park(ctx, 0)
			break
		}
		if r.rec.Status == Running {
			err = r.forward(ctx, stop)
		} else {
			err = r.backward(ctx, stop)
		}
	}
	if errors.Is(err, ErrUnstorable) {
		err = r.giveUp(ctx, err)
	}
	if err == nil || errors.Is(err, errStop) {
		return true
	}
	errclass.Record(span, err)
	r.o.cfg.Logger.WarnContext(ctx, "saga: left to others", "saga", r.rec.Name, "saga_id", r.rec.ID, "error", err)
	return errors.Is(err, ErrFenced) || errors.Is(err, ErrNotFound)
}

// begin records what a takeover means: the attempt that the last owner was making may have had its effect.
func (r *runner) begin(ctx context.Context, takenOver bool) error {
	if r.rec.Status == Compensating && takenOver {
		return r.markUndoInDoubt(ctx)
	}
	if r.rec.Status != Running {
		return nil
	}
	st := &r.rec.Steps[r.rec.Cursor]
	if takenOver {
		markInDoubt(st)
		for i := range st.Branches {
			// The claim was the intent of branches that are not stored as started.
			if s := st.Branches[i].Status; s == StepStarted || s == StepNotStarted {
				markInDoubt(&st.Branches[i])
			}
		}
		return r.save(ctx)
	}
	r.intend()
	return nil
}

func markInDoubt(st *StepState) {
	st.Status, st.InDoubt = StepStarted, true
	st.Takeovers++
	st.Error = "the orchestrator's lease expired during the attempt"
}

// intend marks the step at the cursor as begun, which the next write, or the claim itself, makes durable.
func (r *runner) intend() {
	st := &r.rec.Steps[r.rec.Cursor]
	st.Status = StepStarted
	for i := range st.Branches {
		if st.Branches[i].Status == StepNotStarted {
			st.Branches[i].Status = StepStarted
		}
	}
	n := r.def.nodes[r.rec.Cursor]
	if n.kind == kindAwait && n.wait > 0 && st.Deadline.IsZero() {
		st.Deadline = time.Now().Add(n.wait).UTC()
	}
}

// save stores the saga, and finds out what became of a write whose acknowledgement was lost. A signal that came
// meanwhile is looked at first: a cancellation may forbid what the write intends.
func (r *runner) save(ctx context.Context) error {
	return r.saveUnless(ctx, func() bool { return false })
}

// saveUnless saves, and returns ErrSignalled when a signal arrived that forbids the write.
func (r *runner) saveUnless(ctx context.Context, forbidden func() bool) error {
	if errors.Is(context.Cause(ctx), ErrDraining) { // the result is still stored, within bounds
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
	}
	pause := backoff.Exponential(20*time.Millisecond, time.Second)
	for n := 1; ; n++ {
		var err error
		if utf8.Valid(r.rec.State) {
			err = r.o.store.Save(ctx, r.rec)
		} else {
			err = fmt.Errorf("%w: the state is not valid UTF-8", ErrUnstorable)
		}
		switch {
		case err == nil:
			r.rec.Revision++
			r.o.changed(ctx, r.rec)
			return nil
		case errors.Is(err, ErrFenced):
			// Our own write may have been done although its answer was lost: no other node writes under our fence.
			stored, gerr := r.o.store.Get(ctx, r.rec.ID)
			if gerr == nil && n > 1 && stored.Fence == r.rec.Fence && stored.Revision == r.rec.Revision+1 {
				r.rec.Revision++
				r.o.changed(ctx, r.rec)
				return nil
			}
			if gerr == nil || errors.Is(gerr, ErrNotFound) {
				return err
			}
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrUnstorable): // it was deleted, or no later try can succeed
			return err
		case errors.Is(err, ErrSignalled):
			stored, gerr := r.o.store.Get(ctx, r.rec.ID)
			if gerr == nil {
				r.rec.Signals, r.rec.SignalSeq = stored.Signals, stored.SignalSeq
				if forbidden() {
					return err
				}
				if r.cancelled() && r.atBoundary() {
					r.abort(ErrCancelled)
				}
				r.cancelAtEnd()
				if r.rec.Owner == "" {
					r.rec.WakeAt = time.Now().UTC() // do not sleep over a signal
				}
				continue
			}
		default:
			r.o.cfg.Logger.WarnContext(
				ctx, "saga: a write failed, trying again", "saga", r.rec.Name, "saga_id", r.rec.ID, "error", err,
			)
		}
		if err := backoff.Sleep(ctx, pause.Delay(n)); err != nil {
			return err
		}
	}
}

// atBoundary says whether nothing of the step at the cursor has run.
func (r *runner) atBoundary() bool {
	if r.rec.Status != Running {
		return false
	}
	st := &r.rec.Steps[r.rec.Cursor]
	for _, b := range st.Branches {
		if b.Attempts > 0 || b.InDoubt {
			return false
		}
	}
	return st.Attempts == 0 && !st.InDoubt
}

func (r *runner) cancelled() bool {
	_, here := r.rec.Signals[cancelSignal]
	return here
}

// abort starts compensation unless the pivot has begun, and its beginning was stored.
func (r *runner) abort(cause error) {
	fresh := r.atBoundary()
	if r.rec.Status != Running || r.rec.Cursor > r.def.pivot || r.rec.Cursor == r.def.pivot && !fresh {
		return
	}
	st := &r.rec.Steps[r.rec.Cursor]
	if fresh {
		st.Status = StepNotStarted
		for i := range st.Branches {
			st.Branches[i].Status = StepNotStarted
		}
	}
	r.startCompensation(st.Name, cause.Error())
}

// deadline returns until when the saga must have begun its pivot.
func (r *runner) deadline() (at time.Time, bounded bool) {
	return r.rec.CreatedAt.Add(r.def.bound), r.def.bound > 0 && r.rec.Cursor <= r.def.pivot
}

// cancelAtEnd turns the end of a saga without a pivot into its compensation where a cancellation came during the last
// step: Cancel has reported success.
func (r *runner) cancelAtEnd() {
	_, cancelled := r.rec.Signals[cancelSignal]
	last := len(r.def.nodes) - 1
	if !cancelled || r.rec.Status != Completed || r.def.pivot <= last {
		return
	}
	r.rec.Cursor, r.rec.Owner = last, r.owner
	r.startCompensation(r.rec.Steps[last].Name, ErrCancelled.Error())
}

// giveUp makes the saga stuck as it was stored last, where the store can never hold what it has become. The step at the
// cursor is in doubt then: its effect is there, its result is lost.
func (r *runner) giveUp(ctx context.Context, cause error) error {
	stored, err := r.o.store.Get(ctx, r.rec.ID)
	if err != nil {
		return err
	}
	if stored.Fence != r.rec.Fence || stored.Revision != r.rec.Revision {
		return ErrFenced
	}
	r.rec = stored
	if err := r.def.adopt(&r.rec); err != nil {
		return err
	}
	st := &r.rec.Steps[r.rec.Cursor]
	if r.rec.Status == Running {
		st.Status, st.InDoubt, st.Error = StepFailed, true, cut(cause.Error())
	} else {
		st.UndoError = cut(cause.Error())
	}
	r.rec.FailedStep, r.rec.Cause = st.Name, cut(cause.Error())
	r.finish(Stuck)
	return r.save(ctx)
}

// startCompensation begins to compensate, at the step that the cursor stands on.
func (r *runner) startCompensation(step, cause string) {
	r.rec.Status = Compensating
	r.rec.FailedStep, r.rec.Cause = step, cause
	r.intendUndo()
}

// park gives the saga back, to be claimed after the delay.
func (r *runner) park(ctx context.Context, delay time.Duration) error {
	return r.parkUntil(ctx, time.Now().Add(delay))
}

func (r *runner) parkUntil(ctx context.Context, at time.Time) error {
	if end, bounded := r.deadline(); bounded && r.rec.Status == Running && end.Before(at) && time.Now().Before(end) {
		at = end
	}
	r.rec.Owner, r.rec.WakeAt = "", at.UTC()
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := r.save(sctx); err != nil {
		return err
	}
	r.o.wakeAt(at)
	return errStop
}

// wakeAt makes Run look for work at a time.
func (o *Orchestrator) wakeAt(at time.Time) {
	if d := time.Until(at); d <= 0 {
		o.wake()
	} else if d < o.cfg.Poll {
		time.AfterFunc(d, o.wake)
	}
}

// forward makes the step at the cursor, and stores its result together with the intent of the next one.
func (r *runner) forward(ctx context.Context, stop stopSignal) error {
	n, st := r.def.nodes[r.rec.Cursor], &r.rec.Steps[r.rec.Cursor]
	if r.cancelled() {
		r.abort(ErrCancelled)
	} else if at, bounded := r.deadline(); bounded && !time.Now().Before(at) {
		if n.kind == kindAwait && !st.TimedOut { // a signal that came in time is handled first
			if !r.signalled(n, st) {
				return r.unlessSignalled(ctx, n, func(*StepState) { r.abort(ErrDeadline) })
			}
		} else {
			r.abort(ErrDeadline)
		}
	}
	if r.rec.Status != Running {
		return r.save(ctx)
	}
	var res result
	switch n.kind {
	case kindParallel:
		res = r.parallel(ctx, stop, n, st)
	case kindSleep:
		res = r.sleep(n, st)
	case kindAwait:
		var here bool
		if res, here = r.await(ctx, stop, n, st); !here {
			return r.wait(ctx, n, st)
		}
	default:
		res = r.attempts(ctx, stop, n, st, attemptOf{do: n.do})
	}
	switch res.end {
	case endDone:
		r.rec.State = res.state
		if n.each && !st.TimedOut && !res.done { // the next signal has attempts of its own
			st.Attempts, st.Takeovers, st.Error = 0, 0, ""
			break
		}
		st.Status, st.Error = StepCompleted, ""
		if r.rec.Cursor++; r.rec.Cursor == len(r.def.nodes) {
			r.finish(Completed)
		} else {
			r.intend()
		}
	case endRejected, endExhausted:
		st.Status, st.Error = StepFailed, cut(res.err.Error())
		forward := r.rec.Cursor > r.def.pivot || r.rec.Cursor == r.def.pivot && st.InDoubt
		if forward {
			r.rec.FailedStep, r.rec.Cause = cmp.Or(res.step, st.Name), st.Error
			r.finish(Stuck)
		} else {
			r.startCompensation(cmp.Or(res.step, st.Name), st.Error)
		}
	case endPark:
		return r.park(ctx, res.delay)
	case endLost:
		return res.err
	}
	return r.save(ctx)
}

// finish ends the saga, or leaves it to operators.
func (r *runner) finish(s Status) {
	r.rec.Status, r.rec.Owner = s, ""
}

// checkpoint stores the state in the middle of a step.
func (r *runner) checkpoint(ctx context.Context, state []byte) error {
	before := r.rec.State
	r.rec.State = state
	err := r.save(ctx)
	if errors.Is(err, ErrUnstorable) {
		r.rec.State = before
	}
	return err
}
