// Package memevents keeps events in memory: for tests and examples.
package memevents

import (
	"context"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
)

// Config tunes a Store. The zero Config is useful.
type Config struct {
	// Propagator writes correlation id and trace into the metadata. Nil means both.
	Propagator propagation.TextMapPropagator
}

// Store is an eventstore.Store. It is safe for concurrent use. It has no transactions.
type Store struct {
	cfg Config

	mu          sync.Mutex
	all         []eventstore.Recorded
	streams     map[string][]int // places in all
	ids         map[string]bool
	snapshots   map[snapshotKey]eventstore.Snapshot
	checkpoints map[string]string
	changed     chan struct{}
}

type snapshotKey struct {
	stream string
	schema int
}

var _ eventstore.Store = (*Store)(nil)

// New returns an empty store.
func New(cfg Config) *Store {
	return &Store{cfg: cfg, streams: map[string][]int{}, ids: map[string]bool{},
		snapshots: map[snapshotKey]eventstore.Snapshot{}, checkpoints: map[string]string{}, changed: make(chan struct{})}
}

// Append implements eventstore.Store.
func (s *Store) Append(ctx context.Context, stream string, expected int64,
	events ...eventstore.Event) ([]eventstore.Recorded, error) {
	prepared, err := eventstore.Prepare(ctx, s.cfg.Propagator, stream, expected, events, id.New)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	out, err := s.append(stream, expected, prepared)
	if err != nil {
		return eventstore.Repeated(ctx, s, stream, expected, events, prepared, err)
	}
	return out, nil
}

func (s *Store) append(stream string, expected int64, events []eventstore.Event) ([]eventstore.Recorded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := int64(len(s.streams[stream]))
	if expected != eventstore.AnyVersion && expected != version {
		return nil, &repository.ConflictError{ID: stream, Expected: expected, Actual: version}
	}
	for _, e := range events {
		if s.ids[e.ID] {
			return nil, &repository.UniqueError{Constraint: "id", Fields: []string{"id"}}
		}
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	var out []eventstore.Recorded
	for _, e := range events {
		version++
		r := eventstore.Recorded{Event: e, Stream: stream, Version: version, Position: int64(len(s.all)) + 1, Time: now}
		s.streams[stream] = append(s.streams[stream], len(s.all))
		s.all = append(s.all, clone(r))
		s.ids[e.ID] = true
		out = append(out, r)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return out, nil
}

func clone(r eventstore.Recorded) eventstore.Recorded {
	r.Data = slices.Clone(r.Data)
	r.Metadata = maps.Clone(r.Metadata)
	return r
}

// Redact implements eventstore.Store.
func (s *Store) Redact(_ context.Context, stream string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.streams[stream] {
		s.all[at].Data, s.all[at].Metadata = json.RawMessage("null"), nil
	}
	maps.DeleteFunc(s.snapshots, func(k snapshotKey, _ eventstore.Snapshot) bool { return k.stream == stream })
	return nil
}

// LoadFrom implements eventstore.Store.
func (s *Store) LoadFrom(ctx context.Context, stream string, after int64) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		for after := max(after, 0); ; { // it may be ranged over again
			if err := context.Cause(ctx); err != nil {
				yield(eventstore.Recorded{}, err)
				return
			}
			s.mu.Lock()
			places := s.streams[stream]
			if after >= int64(len(places)) {
				s.mu.Unlock()
				return
			}
			r := clone(s.all[places[after]])
			s.mu.Unlock()
			after++
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (s *Store) place(cursor string) (int, error) {
	if cursor == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(cursor)
	if err != nil || n < 0 || n > len(s.all) {
		return 0, eventstore.ErrCursor
	}
	return n, nil
}

// Read implements eventstore.Store.
func (s *Store) Read(ctx context.Context, cursor string, limit int) ([]eventstore.Recorded, string, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err := s.place(cursor)
	if err != nil {
		return nil, "", err
	}
	var out []eventstore.Recorded
	for _, r := range s.all[at:min(len(s.all), at+max(limit, 0))] {
		out = append(out, clone(r))
	}
	if len(out) == 0 {
		return nil, cursor, nil
	}
	return out, strconv.Itoa(at + len(out)), nil
}

// Wait implements eventstore.Store.
func (s *Store) Wait(ctx context.Context) {
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}

// Lag implements eventstore.Store.
func (s *Store) Lag(ctx context.Context, cursor string) (int64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err := s.place(cursor)
	return int64(len(s.all) - at), err
}

// SaveSnapshot implements eventstore.Store.
func (s *Store) SaveSnapshot(ctx context.Context, snap eventstore.Snapshot) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := snapshotKey{snap.Stream, snap.Schema}
	if old, ok := s.snapshots[k]; !ok || old.Version < snap.Version {
		snap.State = append(json.RawMessage(nil), snap.State...)
		s.snapshots[k] = snap
	}
	return nil
}

// LoadSnapshot implements eventstore.Store.
func (s *Store) LoadSnapshot(ctx context.Context, stream string, schema int) (eventstore.Snapshot, bool, error) {
	if err := context.Cause(ctx); err != nil {
		return eventstore.Snapshot{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	snap, ok := s.snapshots[snapshotKey{stream, schema}]
	return snap, ok, nil
}

// Checkpoint implements eventstore.Store.
func (s *Store) Checkpoint(ctx context.Context, projection string) (string, error) {
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkpoints[projection], nil
}

// MoveCheckpoint implements eventstore.Store.
func (s *Store) MoveCheckpoint(ctx context.Context, projection, from, to string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checkpoints[projection] != from {
		return eventstore.ErrCheckpoint
	}
	s.checkpoints[projection] = to
	return nil
}
