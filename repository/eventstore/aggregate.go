package eventstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/repository"
)

// Decider says how events make a state.
type Decider[S, E any] struct {
	// Initial is the state of a stream without events. Nil means the zero S.
	Initial func() S
	// Evolve returns the state after an event. It decides nothing, and never fails. Required.
	Evolve func(S, E) S
}

// AggregateConfig tunes an Aggregate.
type AggregateConfig struct {
	// Category begins the stream's name: an aggregate's stream is Category-id. Required.
	Category string
	// SnapshotEvery keeps a snapshot each time so many events have come since the last. 0 means never: a stream of a
	// few dozen events is folded faster than a snapshot is looked up.
	SnapshotEvery int
	// SnapshotSchema is the version of the state's form. Raise it when the state or Evolve changes: older snapshots
	// are then ignored. 0 means 1.
	SnapshotSchema int
	// MaxAttempts bounds how often Handle reads afresh when others append to the same stream. Default: only the context
	// bounds it.
	MaxAttempts int
	// Logger logs snapshots that could not be stored, which only costs time. Nil means slog.Default.
	Logger *slog.Logger
}

// Aggregate loads and changes states that are kept as events. It is safe for concurrent use.
type Aggregate[S, E any] struct {
	store Store
	d     Decider[S, E]
	codec *codec[E]
	cfg   AggregateConfig
}

// NewAggregate returns an aggregate over a store.
func NewAggregate[S, E any](store Store, d Decider[S, E], types Types[E],
	cfg AggregateConfig) (*Aggregate[S, E], error) {
	if store == nil || d.Evolve == nil || cfg.Category == "" {
		return nil, errors.New("eventstore: NewAggregate needs a store, Evolve and Category")
	}
	c, err := newCodec(types)
	if err != nil {
		return nil, err
	}
	if d.Initial == nil {
		d.Initial = func() (s S) { return s }
	}
	if cfg.SnapshotSchema == 0 {
		cfg.SnapshotSchema = 1
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &Aggregate[S, E]{store, d, c, cfg}, nil
}

// Must returns a or panics with err.
func Must[S, E any](a *Aggregate[S, E], err error) *Aggregate[S, E] {
	if err != nil {
		panic(err)
	}
	return a
}

// Stream returns the name of an aggregate's stream.
func (a *Aggregate[S, E]) Stream(id string) string { return a.cfg.Category + "-" + id }

// Decode returns the event that was recorded, lifted to its present schema: for projections.
func (a *Aggregate[S, E]) Decode(r Recorded) (E, error) { return a.codec.decode(r) }

// Load returns the state and its version, or repository.ErrNotFound for a stream without events. The
// error matches ErrDeleted, too, where it had some.
func (a *Aggregate[S, E]) Load(ctx context.Context, id string) (S, int64, error) {
	s, version, _, err := a.load(ctx, id)
	if err == nil && version == 0 {
		err = fmt.Errorf("eventstore: load %s: %w", a.Stream(id), repository.ErrNotFound)
	}
	return s, version, err
}

// load returns the state, its version, and the version of the snapshot it began with.
func (a *Aggregate[S, E]) load(ctx context.Context, id string) (s S, version, from int64, err error) {
	if a.cfg.SnapshotEvery > 0 {
		snap, ok, err := a.store.LoadSnapshot(ctx, a.Stream(id), a.cfg.SnapshotSchema)
		if err != nil {
			return a.d.Initial(), 0, 0, err
		}
		if ok {
			s, version, fits, err := a.since(ctx, snap)
			if err != nil || fits {
				return s, version, snap.Version, err
			}
			a.cfg.Logger.WarnContext(ctx, "eventstore: a snapshot that does not fit its stream is ignored",
				"stream", snap.Stream, "version", snap.Version)
		}
	}
	s = a.d.Initial()
	for r, err := range a.store.LoadFrom(ctx, a.Stream(id), 0) {
		if err == nil {
			s, err = a.evolve(s, r)
		}
		if err != nil {
			return s, 0, 0, err
		}
		version = r.Version
	}
	return s, version, 0, nil
}

// evolve returns the state after an event as it was recorded.
func (a *Aggregate[S, E]) evolve(s S, r Recorded) (S, error) {
	if r.Type == Deleted {
		return s, fmt.Errorf("eventstore: load %s: %w: %w", r.Stream, repository.ErrNotFound, ErrDeleted)
	}
	e, err := a.codec.decode(r)
	if err != nil {
		return s, err
	}
	return a.d.Evolve(s, e), nil
}

// snapshotState is the state of a Snapshot, with the event after which it was taken.
type snapshotState struct {
	Event string          `json:"event"`
	State json.RawMessage `json:"state"`
}

// since returns the state that a snapshot and the events after it make, and whether the snapshot's last event is in the
// stream: a store that was restored may hold a snapshot that is ahead of its stream, or of events that others have
// taken the place of.
func (a *Aggregate[S, E]) since(ctx context.Context, snap Snapshot) (s S, version int64, fits bool, err error) {
	s = a.d.Initial()
	var kept snapshotState
	if json.Unmarshal(snap.State, &kept) != nil || kept.Event == "" {
		return s, 0, false, nil
	}
	if err := json.Unmarshal(kept.State, &s); err != nil {
		return s, 0, false, fmt.Errorf("eventstore: decode the snapshot of %s: %w", snap.Stream, err)
	}
	for r, err := range a.store.LoadFrom(ctx, snap.Stream, snap.Version-1) {
		switch {
		case err != nil:
		case fits:
			s, err = a.evolve(s, r)
		default: // the first
			if fits = r.Version == snap.Version && r.ID == kept.Event; !fits {
				return s, 0, false, nil
			}
		}
		if err != nil {
			return s, 0, false, err
		}
		version = r.Version
	}
	return s, version, fits, nil
}

// Handle loads the state, lets decide say what happens, appends that, and returns the state after it. When another has
// appended meanwhile it begins anew after a pause with jitter, until ctx ends or AggregateConfig.MaxAttempts is used
// up, so decide may run more than once. An error of decide's own ends it. Without events nothing is written.
func (a *Aggregate[S, E]) Handle(ctx context.Context, id string, decide func(ctx context.Context,
	s S) ([]E, error)) (S, error) {
	pause := backoff.Exponential(2*time.Millisecond, 100*time.Millisecond)
	for n := 1; ; n++ {
		s, overtaken, err := a.handle(ctx, id, decide)
		if !overtaken || n == a.cfg.MaxAttempts {
			return s, err
		}
		if ended := backoff.Sleep(ctx, pause.Delay(n)); ended != nil {
			return s, fmt.Errorf("eventstore: handle %s: %w after %d attempts: %w", a.Stream(id), ended, n, err)
		}
	}
}

// handle is one attempt, and reports whether another append was faster.
func (a *Aggregate[S, E]) handle(ctx context.Context, id string, decide func(context.Context, S) ([]E, error)) (
	_ S, overtaken bool, _ error,
) {
	s, version, from, err := a.load(ctx, id)
	if err != nil {
		return s, false, err
	}
	happened, err := decide(ctx, s)
	if err != nil || len(happened) == 0 {
		return s, false, err
	}
	events := make([]Event, len(happened))
	for i, e := range happened {
		if events[i], err = a.codec.encode(e); err != nil {
			return s, false, err
		}
	}
	recorded, err := a.store.Append(ctx, a.Stream(id), version, events...)
	if err != nil {
		var conflict *repository.ConflictError
		return s, errors.As(err, &conflict) && conflict.ID == a.Stream(id), err
	}
	for _, e := range happened {
		s = a.d.Evolve(s, e)
	}
	version += int64(len(happened))
	if a.cfg.SnapshotEvery > 0 && version-from >= int64(a.cfg.SnapshotEvery) {
		a.snapshot(ctx, id, recorded[len(recorded)-1], s)
	}
	return s, false, nil
}

func (a *Aggregate[S, E]) snapshot(ctx context.Context, id string, last Recorded, s S) {
	state, err := json.Marshal(s)
	if err == nil {
		state, err = json.Marshal(snapshotState{last.ID, state})
	}
	if err == nil {
		err = a.store.SaveSnapshot(ctx, Snapshot{Stream: a.Stream(id), Version: last.Version, Schema: a.cfg.SnapshotSchema,
			State: state})
	}
	if err != nil {
		a.cfg.Logger.WarnContext(ctx, "eventstore: a snapshot was not kept", "stream", a.Stream(id), "version", last.Version,
			"error", err)
	}
}
