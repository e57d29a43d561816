package saga

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrDefinition says that a definition makes no sense.
	ErrDefinition = errors.New("saga: invalid definition")
	// ErrNotFound says that there is no saga with the id.
	ErrNotFound = errors.New("saga: not found")
	// ErrFenced says that another orchestrator has taken the saga over: the write was refused.
	ErrFenced = errors.New("saga: taken over by another orchestrator")
	// ErrSignalled is returned by Store.Save when a signal came that the writer has not seen.
	ErrSignalled = errors.New("saga: a signal came meanwhile")
	// ErrShape says that the store holds unfinished sagas of the same name and version with other steps.
	ErrShape = errors.New("saga: the same version has another shape")
	// ErrUnknown says that the orchestrator has not registered the definition.
	ErrUnknown = errors.New("saga: definition not registered")
	// ErrPastPivot says that the saga can no longer be cancelled.
	ErrPastPivot = errors.New("saga: past the pivot")
	// ErrTooLate says that the saga compensates, or has gone on without the signal, which can have no effect any more.
	ErrTooLate = errors.New("saga: too late for the signal: the saga compensates or has gone on without it")
	// ErrSignals says that the saga keeps MaxSignals signals: another one was not kept.
	ErrSignals = errors.New("saga: too many signals")
	// ErrStarted says that a saga with the id exists that was started with another state. Start returns its handle too.
	ErrStarted = errors.New("saga: already started with another state")
	// ErrUnstorable is returned by a Store that can never hold a record, because of its content or its size. The saga
	// becomes stuck.
	ErrUnstorable = errors.New("saga: the store cannot hold the saga")
	// ErrUnfinished says that the saga has not ended, and cannot be deleted.
	ErrUnfinished = errors.New("saga: not ended yet")
	// ErrFinished says that the saga has ended already.
	ErrFinished = errors.New("saga: finished")
	// ErrNotStuck says that only a stuck saga can be retried or skipped.
	ErrNotStuck = errors.New("saga: not stuck")
	// ErrStep says that the saga is stuck, but not at the step that was to be skipped.
	ErrStep = errors.New("saga: not stuck at that step")
	// ErrBusy says that another operator, or an orchestrator, changed the saga at the same time: look again.
	ErrBusy = errors.New("saga: changed by another")
	// ErrCompensated is matched by a *FailedError of a saga whose effects have all been undone.
	ErrCompensated = errors.New("saga: compensated")
	// ErrStuck is matched by a *FailedError of a saga that needs an operator.
	ErrStuck = errors.New("saga: stuck")
	// ErrCancelled is the cause of a saga that Cancel ended.
	ErrCancelled = errors.New("saga: cancelled")
	// ErrAwaitTimeout is the cause of a saga whose awaited signal did not come in time.
	ErrAwaitTimeout = errors.New("saga: the awaited signal did not come")
	// ErrDeadline is the cause of a saga that had not begun its pivot when its Deadline passed.
	ErrDeadline = errors.New("saga: the deadline of the saga has passed")
	// ErrLostLease is why the context of a handler ends when its orchestrator can no longer prove that it is alive.
	ErrLostLease = errors.New("saga: the orchestrator lost its lease")
	// ErrDraining is why the context of a handler ends when the orchestrator's drain takes too long.
	ErrDraining = errors.New("saga: the orchestrator is shutting down")
	// ErrMerge says that two branches of a Parallel changed the same field of the state.
	ErrMerge = errors.New("saga: branches changed the same field")
	// ErrPanic is matched by the error of a handler that panicked.
	ErrPanic = errors.New("saga: a handler panicked")
)

type rejectedError struct{ err error }

func (e rejectedError) Error() string { return e.err.Error() }
func (e rejectedError) Unwrap() error { return e.err }

// Reject marks an error as a refusal that is known to have had no effect, such as a declined card: the step is not
// tried again, and its own compensation is skipped unless an earlier attempt was in doubt.
func Reject(err error) error {
	if err == nil {
		return nil
	}
	return rejectedError{err}
}

func isRejected(err error) bool {
	var r rejectedError
	return errors.As(err, &r)
}

// FailedError says how a saga ended that did not complete. It matches ErrCompensated or ErrStuck, and ErrCancelled,
// ErrAwaitTimeout or ErrDeadline where that was the cause.
type FailedError struct {
	// ID and Name identify the saga and its definition.
	ID, Name string
	// Status is Compensated or Stuck.
	Status Status
	// Step is the step that failed, and Cause what it said, up to 1,000 bytes of it.
	Step, Cause string
	// Compensations holds what failing compensations said, by step.
	Compensations map[string]string
}

// Error implements error.
func (e *FailedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "saga: %s %s is %s: step %s: %s", e.Name, e.ID, strings.ToLower(string(e.Status)), e.Step, e.Cause)
	for _, step := range slices.Sorted(maps.Keys(e.Compensations)) {
		fmt.Fprintf(&b, "; compensation of %s: %s", step, e.Compensations[step])
	}
	return b.String()
}

// Is matches the sentinels that describe the end.
func (e *FailedError) Is(target error) bool {
	switch target {
	case ErrCompensated:
		return e.Status == Compensated
	case ErrStuck:
		return e.Status == Stuck
	case ErrCancelled, ErrAwaitTimeout, ErrDeadline:
		return e.Cause == target.Error()
	}
	return false
}
