// Package memevents keeps events in memory: for tests and examples.
package memevents

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
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
	streams     map[string][]int // places in all; of a deleted stream that of the last event
	removed     map[int]bool     // places of events that were deleted
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
	return &Store{cfg: cfg, streams: map[string][]int{}, removed: map[int]bool{}, ids: map[string]bool{},
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
	version, deleted := s.head(stream)
	if deleted {
		return nil, fmt.Errorf("%w: %s", eventstore.ErrDeleted, stream)
	}
	if expected != eventstore.AnyVersion && expected != version {
		return nil, &repository.ConflictError{ID: stream, Expected: expected, Actual: version}
	}
	for _, e := range events {
		if s.ids[e.ID] {
			return nil, &repository.UniqueError{Constraint: "id", Fields: []string{"id"}}
		}
	}
	return s.add(stream, version, events), nil
}

// head returns the version of a stream, and whether it was deleted.
func (s *Store) head(stream string) (version int64, deleted bool) {
	places := s.streams[stream]
	if len(places) == 0 {
		return 0, false
	}
	last := s.all[places[len(places)-1]]
	return last.Version, last.Type == eventstore.Deleted
}

func (s *Store) add(stream string, version int64, events []eventstore.Event) (out []eventstore.Recorded) {
	now := time.Now().UTC().Truncate(time.Microsecond)
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
	return out
}

// Delete implements eventstore.Store.
func (s *Store) Delete(ctx context.Context, stream string, expected int64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	version, deleted := s.head(stream)
	switch {
	case deleted || version == 0 && expected <= 0:
		return nil
	case expected != eventstore.AnyVersion && expected != version:
		return &repository.ConflictError{ID: stream, Expected: expected, Actual: version}
	}
	for _, at := range s.streams[stream] {
		delete(s.ids, s.all[at].ID)
		s.all[at], s.removed[at] = eventstore.Recorded{}, true
	}
	delete(s.streams, stream)
	s.add(stream, version, []eventstore.Event{eventstore.Deletion(id.New())})
	maps.DeleteFunc(s.snapshots, func(k snapshotKey, _ eventstore.Snapshot) bool { return k.stream == stream })
	return nil
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
			i, _ := slices.BinarySearchFunc(places, after+1, func(at int, version int64) int {
				return cmp.Compare(s.all[at].Version, version)
			})
			if i == len(places) {
				s.mu.Unlock()
				return
			}
			r := clone(s.all[places[i]])
			s.mu.Unlock()
			after = r.Version
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
	return s.ReadFiltered(ctx, eventstore.Filter{}, cursor, limit)
}

// ReadFiltered implements eventstore.Store.
func (s *Store) ReadFiltered(ctx context.Context, f eventstore.Filter, cursor string,
	limit int) ([]eventstore.Recorded, string, error) {
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
	from := at
	for ; at < len(s.all) && len(out) < limit; at++ {
		if r := s.all[at]; !s.removed[at] && f.Selects(r.Stream, r.Type) {
			out = append(out, clone(r))
		}
	}
	if at == from {
		return nil, cursor, nil
	}
	return out, strconv.Itoa(at), nil
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
	n := len(s.all) - at
	for place := range s.removed {
		if place >= at {
			n--
		}
	}
	return int64(n), err
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
