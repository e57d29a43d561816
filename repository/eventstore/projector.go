package eventstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/repository"
)

// ProjectorConfig tunes a Projector.
type ProjectorConfig struct {
	// Name is under which the checkpoint is kept. Required. A new name rebuilds the read model from the beginning.
	Name string
	// Filter selects the events that are applied; the checkpoint passes over the others. Default: all. A projection that
	// has gone on under another filter lacks what that did not select: give it a new name.
	Filter Filter
	// OnDelete applies that a stream was deleted, in the transaction of the batch, such as by deleting what the read model
	// holds of it. Nil: nothing happens.
	OnDelete func(ctx context.Context, stream string) error
	// Batch is how many events are applied in one transaction. 0 means 100.
	Batch int
	// Timeout bounds a batch, so that a connection that has gone silent does not hold the projection up for long: the
	// batch fails and is tried again. Default 1 min. Negative disables it.
	Timeout time.Duration
	// Park takes over an event that could not be applied ParkAfter times, so that it holds nothing else up: it records the
	// event, such as in a table that operators see, in the transaction of the batch, which ctx carries, and the projection
	// goes on without it. cause is what apply said last. Later events of the stream are applied: apply has to bear that
	// one is missing, or return an error, by which they are parked too. Failures while the database does not answer do not
	// count; those of anything else that apply calls do. Nil: such an event holds the projection up.
	Park func(ctx context.Context, e Recorded, cause error) error
	// ParkAfter is how often an event is tried before it is parked. Default 10, which takes about a minute.
	ParkAfter int
	// Logger gets failures, which are tried again, and parked events. Default slog.Default.
	Logger *slog.Logger
}

// ApplyError says which event a projection could not apply.
type ApplyError struct {
	// Event is the event.
	Event Recorded
	// Err is what the function returned, or its panic.
	Err error
}

// Error implements error.
func (e *ApplyError) Error() string {
	return fmt.Sprintf("eventstore: apply %s at version %d of %s: %v", e.Event.Type, e.Event.Version, e.Event.Stream,
		e.Err)
}

// Unwrap returns what the function returned.
func (e *ApplyError) Unwrap() error { return e.Err }

// Projector keeps a read model up to date with the events of a store.
type Projector struct {
	store Store
	tx    repository.Transactor
	apply func(ctx context.Context, e Recorded) error
	cfg   ProjectorConfig

	mu    sync.Mutex
	fails map[string]*failure // by id, events that could not be applied since the last batch that was
}

// failure is how often an event could not be applied, and why.
type failure struct {
	times int
	cause error
}

// NewProjector returns a projector. tx is the database that holds the read model and the store's checkpoints; apply
// changes the read model inside its transaction, and may run again for the same event when that is rolled back. Effects
// outside the database would then be repeated, as they would by a rebuild: tell them from OnAppend through an outbox.
func NewProjector(store Store, tx repository.Transactor, apply func(ctx context.Context, e Recorded) error,
	cfg ProjectorConfig) (*Projector, error) {
	if store == nil || tx == nil || apply == nil || cfg.Name == "" {
		return nil, errors.New("eventstore: NewProjector needs a store, a transactor, a function and Name")
	}
	if cfg.Batch <= 0 {
		cfg.Batch = 100
	}
	cfg.ParkAfter = max(cmp.Or(cfg.ParkAfter, 10), 1)
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Minute)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &Projector{store: store, tx: tx, apply: apply, cfg: cfg, fails: map[string]*failure{}}, nil
}

// Run follows the store until ctx ends, and returns nil. An event that cannot be applied, also for a panic, holds the
// projection up: it is tried again, with a pause, and logged each time, and skipped only where ProjectorConfig.Park
// takes it over. Several may run; one at a time moves.
func (p *Projector) Run(ctx context.Context) error {
	pause := backoff.Exponential(50*time.Millisecond, 10*time.Second)
	for failed := 0; ctx.Err() == nil; {
		n, err := p.Step(ctx)
		switch {
		case errors.Is(err, ErrCheckpoint): // another projector was faster
			_ = backoff.Sleep(ctx, pause.Delay(1))
		case err != nil:
			if ctx.Err() == nil {
				failed++
				p.cfg.Logger.ErrorContext(ctx, "eventstore: a projection is held up", "projection", p.cfg.Name, "failures", failed,
					"error", err)
				_ = backoff.Sleep(ctx, pause.Delay(failed))
			}
		case n == 0:
			failed = 0
			p.store.Wait(ctx)
		default:
			failed = 0
		}
	}
	return nil
}

// Step applies one batch and returns how many events it held: for tests, and for catching up before serving. 0 says
// that there was none to apply.
func (p *Projector) Step(ctx context.Context) (n int, err error) {
	for moved := true; moved && n == 0; {
		err = p.inTx(ctx, func(ctx context.Context) (err error) {
			n, moved, err = p.step(ctx)
			return err
		})
		if err != nil {
			p.noteFailure(ctx, err)
			return 0, err
		}
	}
	if n > 0 {
		p.mu.Lock()
		clear(p.fails)
		p.mu.Unlock()
	}
	return n, nil
}

// inTx runs fn in a transaction that ends within Timeout.
func (p *Projector) inTx(ctx context.Context, fn func(ctx context.Context) error) error {
	if p.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.cfg.Timeout)
		defer cancel()
	}
	return p.tx.InTx(ctx, fn)
}

// noteFailure counts the failures of an event. While the database does not answer nothing is the event's fault.
func (p *Projector) noteFailure(ctx context.Context, err error) {
	var failed *ApplyError
	if p.cfg.Park == nil || !errors.As(err, &failed) {
		return
	}
	if err := p.inTx(ctx, func(ctx context.Context) error {
		at, err := p.store.Checkpoint(ctx, p.cfg.Name)
		if err != nil {
			return err
		}
		return p.store.MoveCheckpoint(ctx, p.cfg.Name, at, at)
	}); err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fails[failed.Event.ID]
	if f == nil {
		f = &failure{}
		p.fails[failed.Event.ID] = f
	}
	f.times++
	f.cause = failed.Err
}

// poison returns why an event is to be parked, or nil.
func (p *Projector) poison(e Recorded) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.fails[e.ID]; f != nil && p.cfg.Park != nil && f.times >= p.cfg.ParkAfter {
		return f.cause
	}
	return nil
}

// step applies a batch in the transaction that ctx carries, and reports whether the checkpoint moved, as it does past
// events that the filter does not select.
func (p *Projector) step(ctx context.Context) (n int, moved bool, err error) {
	from, err := p.store.Checkpoint(ctx, p.cfg.Name)
	if err != nil {
		return 0, false, err
	}
	events, next, err := p.store.ReadFiltered(ctx, p.cfg.Filter, from, p.cfg.Batch)
	if err != nil || next == from {
		return 0, false, err
	}
	// A move to where it is holds the checkpoint there until the commit: another projector waits for that, and then learns
	// that it was slower before it applies anything.
	if err := p.store.MoveCheckpoint(ctx, p.cfg.Name, from, from); err != nil {
		return 0, false, err
	}
	for _, e := range events {
		if cause := p.poison(e); cause != nil {
			if err := p.cfg.Park(ctx, e, cause); err != nil {
				return 0, false, fmt.Errorf("eventstore: park %s at version %d of %s: %w", e.Type, e.Version, e.Stream, err)
			}
			p.cfg.Logger.ErrorContext(ctx, "eventstore: an event is parked, the projection goes on without it", "projection",
				p.cfg.Name,
				"stream", e.Stream, "version", e.Version, "error", cause)
			continue
		}
		if err := p.guarded(ctx, e); err != nil {
			return 0, false, &ApplyError{e, err}
		}
	}
	return len(events), true, p.store.MoveCheckpoint(ctx, p.cfg.Name, from, next)
}

// guarded makes an error of a panic: an event that one projection cannot bear holds that up, and not the whole program,
// which would meet it again at its next start.
func (p *Projector) guarded(ctx context.Context, e Recorded) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p.cfg.Logger.ErrorContext(ctx, "eventstore: a projection panicked", "projection", p.cfg.Name, "panic", v, "stack",
				string(debug.Stack()))
			err = fmt.Errorf("eventstore: a panic: %v", v)
		}
	}()
	if e.Type == Deleted {
		if p.cfg.OnDelete == nil {
			return nil
		}
		return p.cfg.OnDelete(ctx, e.Stream)
	}
	return p.apply(ctx, e)
}

// Replace lets this projection, a rebuild under a new name, take the place of the projection old, while events are
// appended and old goes on. It catches up, and then runs change, which turns readers to the new read model, in a
// transaction in which old stands still and this one is at least as far: what readers see does not go back. Then run
// this one, and stop old.
func (p *Projector) Replace(ctx context.Context, old string, change func(ctx context.Context) error) error {
	if old == "" || old == p.cfg.Name || change == nil {
		return fmt.Errorf("eventstore: %s cannot replace the projection %q", p.cfg.Name, old)
	}
	pause := backoff.Exponential(10*time.Millisecond, time.Second)
	for attempt := 1; ; attempt++ {
		err := p.replace(ctx, old, change)
		if !errors.Is(err, ErrCheckpoint) { // old, or another of our name, moved just then
			return err
		}
		if err := backoff.Sleep(ctx, pause.Delay(attempt)); err != nil {
			return err
		}
	}
}

func (p *Projector) replace(ctx context.Context, old string, change func(ctx context.Context) error) error {
	for n := 1; n > 0; { // most of it in transactions of their own
		var err error
		if n, err = p.Step(ctx); err != nil {
			return err
		}
	}
	return p.tx.InTx(ctx, func(ctx context.Context) error {
		place, err := p.store.Checkpoint(ctx, old)
		if err != nil {
			return err
		}
		if err := p.store.MoveCheckpoint(ctx, old, place, place); err != nil { // holds it there until the commit
			return err
		}
		for moved := true; moved; {
			if _, moved, err = p.step(ctx); err != nil {
				return err
			}
		}
		return change(ctx)
	})
}

// Lag returns how many events the projection has yet to apply. Stores in SQL count up to 100,000. Events
// that Filter does not select are counted, too, until the checkpoint has passed them.
func (p *Projector) Lag(ctx context.Context) (int64, error) {
	from, err := p.store.Checkpoint(ctx, p.cfg.Name)
	if err != nil {
		return 0, err
	}
	return p.store.Lag(ctx, from)
}
