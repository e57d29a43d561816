package saga

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// Status is the state of a saga.
type Status string

// The states of a saga. Completed and Compensated are final; a Stuck one waits for an operator.
const (
	Running      Status = "RUNNING"
	Compensating Status = "COMPENSATING"
	Completed    Status = "COMPLETED"
	Compensated  Status = "COMPENSATED"
	Stuck        Status = "STUCK"
)

// Ended reports whether nothing more will happen by itself.
func (s Status) Ended() bool { return s == Completed || s == Compensated || s == Stuck }

// StepStatus is the state of a step.
type StepStatus string

// The states of a step.
const (
	StepNotStarted  StepStatus = "NOT_STARTED"
	StepStarted     StepStatus = "STARTED"
	StepCompleted   StepStatus = "COMPLETED"
	StepFailed      StepStatus = "FAILED"
	StepCompensated StepStatus = "COMPENSATED"
)

// StepState is how far a step has come.
type StepState struct {
	Name   string     `json:"name"`
	Status StepStatus `json:"status"`
	// InDoubt says that an attempt ended without it being known whether it had an effect.
	InDoubt bool `json:"in_doubt,omitempty"`
	// Attempts counts those of the action, UndoAttempts those of the compensation.
	Attempts     int `json:"attempts,omitempty"`
	UndoAttempts int `json:"undo_attempts,omitempty"`
	// Takeovers counts the attempts of the action that ended with the process or the lease of the orchestrator,
	// UndoTakeovers those of the compensation.
	Takeovers     int `json:"takeovers,omitempty"`
	UndoTakeovers int `json:"undo_takeovers,omitempty"`
	// Undoing says that an attempt of the compensation was stored as begun and has not ended.
	Undoing bool `json:"undoing,omitempty"`
	// Error is what the last failed attempt said, UndoError what the compensation said.
	Error     string `json:"error,omitempty"`
	UndoError string `json:"undo_error,omitempty"`
	// Undone says that the compensation needs no more: it ran, was not needed, or was skipped by an operator.
	Undone bool `json:"undone,omitempty"`
	// Deadline is until when a signal is awaited, or a sleep lasts, in UTC.
	Deadline time.Time `json:"deadline,omitzero"`
	// TimedOut says that an awaited signal did not come in time, and that the saga goes on without it.
	TimedOut bool `json:"timed_out,omitempty"`
	// Seen is the number of the last signal that an AwaitEach has handled.
	Seen int64 `json:"seen,omitempty"`
	// RetryAt is when the next attempt of a branch is due, in UTC.
	RetryAt time.Time `json:"retry_at,omitzero"`
	// Branches are those of a Parallel.
	Branches []StepState `json:"branches,omitempty"`
}

// Audit is what an operator did to a saga.
type Audit struct {
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"`
	Step   string    `json:"step,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Record is a saga as it is stored.
type Record struct {
	ID      string
	Name    string
	Version int
	// Shape is a hash of the definition's steps.
	Shape  string
	Status Status
	// Cursor is the step that runs, or that compensation has come to.
	Cursor int
	// State is the state of the saga as JSON.
	State []byte
	Steps []StepState
	// FailedStep and Cause say why the saga compensates or is stuck.
	FailedStep, Cause string
	// Headers carry correlation id, trace context and search attributes.
	Headers map[string]string
	Audit   []Audit

	// Revision counts the writes, Fence the owners.
	Revision, Fence int64
	// Owner is the orchestrator at work, or "".
	Owner string
	// WakeAt is when an unowned saga wants to be claimed, in UTC.
	WakeAt time.Time
	// Signals are the payloads that came, by name, as JSON. SignalSeq counts them.
	Signals   map[string][]byte
	SignalSeq int64

	CreatedAt, UpdatedAt time.Time
}

// attributeHeader begins the header of a search attribute.
const attributeHeader = "sillar-attribute-"

// Attributes returns the search attributes of the saga: see WithAttributes.
func (r Record) Attributes() map[string]string {
	var out map[string]string
	for header, value := range r.Headers {
		if name, ok := strings.CutPrefix(header, attributeHeader); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = value
		}
	}
	return out
}

// Clone returns a copy that shares no memory: for stores that keep records in memory.
func (r Record) Clone() Record {
	r.State = slices.Clone(r.State)
	r.Steps = slices.Clone(r.Steps)
	for i := range r.Steps {
		r.Steps[i].Branches = slices.Clone(r.Steps[i].Branches)
	}
	r.Headers = maps.Clone(r.Headers)
	r.Signals = maps.Clone(r.Signals)
	r.Audit = slices.Clone(r.Audit)
	return r
}

// Kind names definitions that an orchestrator has registered.
type Kind struct {
	Name    string
	Version int
}

// Claimed is a saga that Claim gave to an orchestrator.
type Claimed struct {
	Record
	// TakenOver says that another owner had it, and died or lost its lease: its last attempt is in doubt.
	TakenOver bool
}

// Filter selects sagas for List and Count. The zero Filter selects all.
type Filter struct {
	// Name is the definition's; "" selects all.
	Name string
	// Statuses selects; empty selects all.
	Statuses []Status
	// Attribute and Value select the sagas that were started with the search attribute; see WithAttributes.
	Attribute, Value string
	// IDs selects among these sagas, at most 1,000; empty selects all.
	IDs []string
	// Since and Until select the sagas that were started from Since on and before Until. Zero: no bound.
	Since, Until time.Time
	// After is the id that the page before ended with, and Since its start: see Next.
	After string
	// Limit bounds the result. 0 and less mean 100, for Count 10,000.
	Limit int
}

// Next returns the filter of the page after one that List returned.
func (f Filter) Next(page []Record) Filter {
	if len(page) > 0 {
		last := page[len(page)-1]
		f.Since, f.After = last.CreatedAt, last.ID
	}
	return f
}

// MaxFilterIDs bounds Filter.IDs.
const MaxFilterIDs = 1000

// Store keeps sagas. Package sagatest checks that an adapter keeps the promises. Times are judged by the store's
// clock, which all orchestrators share.
type Store interface {
	// Insert stores a new saga, with its Signals and attributes, or returns the stored one and false when its id is
	// taken. It joins the transaction that ctx carries.
	Insert(ctx context.Context, r Record) (stored Record, inserted bool, err error)
	// InTx reports whether ctx carries a transaction of the store's, and AfterCommit runs fn once it is committed, or
	// at once where there is none.
	InTx(ctx context.Context) bool
	AfterCommit(ctx context.Context, fn func())
	// Get returns a saga, or ErrNotFound.
	Get(ctx context.Context, id string) (Record, error)
	// Claim gives the node up to limit sagas of the kinds, oldest wake first, that are Running or Compensating, whose
	// time has come, and that have no owner, or one without a lease. It raises Fence and Revision.
	Claim(ctx context.Context, node string, kinds []Kind, limit int) ([]Claimed, error)
	// Save stores all but Signals if the stored saga has r's Fence and Revision (else ErrFenced) and r's SignalSeq
	// (else ErrSignalled). The stored Revision is then r.Revision + 1. A saga that was deleted is ErrNotFound, or
	// ErrFenced. A record that the store can never hold is ErrUnstorable.
	Save(ctx context.Context, r Record) error
	// Signal keeps a payload under a name, once: the first one stays. It returns whether this was the first, sets
	// WakeAt to now, and ErrNotFound or ErrFinished. payload sees the saga first, in the same transaction, and can
	// refuse.
	Signal(ctx context.Context, id, name string, payload func(Record) ([]byte, error)) (first bool, err error)
	// Heartbeat gives the node a lease from now on. Leave ends it.
	Heartbeat(ctx context.Context, node string, lease time.Duration) error
	Leave(ctx context.Context, node string) error
	// List returns sagas in the order of their start, those of the same instant by id.
	List(ctx context.Context, f Filter) ([]Record, error)
	// Count counts sagas, up to f.Limit.
	Count(ctx context.Context, f Filter) (int, error)
	// Delete deletes a saga that has ended, and all that is kept of it. The error is ErrNotFound or ErrUnfinished.
	Delete(ctx context.Context, id string) error
	// Prune deletes up to limit sagas that were completed or compensated before a time, and returns how many.
	Prune(ctx context.Context, before time.Time, limit int) (int, error)
	// Shapes returns the shapes of unfinished sagas of a kind.
	Shapes(ctx context.Context, k Kind) ([]string, error)
}
