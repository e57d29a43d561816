// Package sagamem keeps sagas in memory: for tests, examples, and programs whose sagas may end with the process.
//
//	o, err := saga.New(sagamem.New(), saga.Config{}, PlaceOrder)
package sagamem

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// Store is a saga.Store. It is safe for concurrent use, also by several orchestrators.
type Store struct {
	mu     sync.Mutex
	sagas  map[string]saga.Record
	leases map[string]time.Time
}

var _ saga.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{sagas: map[string]saga.Record{}, leases: map[string]time.Time{}}
}

// Insert implements saga.Store.
func (s *Store) Insert(_ context.Context, r saga.Record) (saga.Record, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stored, ok := s.sagas[r.ID]; ok {
		return stored.Clone(), false, nil
	}
	r.Revision = 1
	s.sagas[r.ID] = r.Clone()
	return r, true, nil
}

// InTx implements saga.Store: there are no transactions.
func (s *Store) InTx(context.Context) bool { return false }

// AfterCommit implements saga.Store.
func (s *Store) AfterCommit(_ context.Context, fn func()) { fn() }

// Get implements saga.Store.
func (s *Store) Get(_ context.Context, id string) (saga.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.sagas[id]
	if !ok {
		return r, saga.ErrNotFound
	}
	return r.Clone(), nil
}

// Claim implements saga.Store.
func (s *Store) Claim(_ context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var due []saga.Record
	for _, r := range s.sagas {
		if r.Status.Ended() || !slices.Contains(kinds, saga.Kind{Name: r.Name, Version: r.Version}) {
			continue
		}
		if r.Owner == "" && r.WakeAt.After(now) || r.Owner != "" && s.leases[r.Owner].After(now) {
			continue
		}
		due = append(due, r)
	}
	slices.SortFunc(due, func(a, b saga.Record) int {
		return cmp.Or(a.WakeAt.Compare(b.WakeAt), cmp.Compare(a.ID, b.ID))
	})
	var out []saga.Claimed
	for _, r := range due[:min(limit, len(due))] {
		taken := r.Owner != ""
		r.Owner, r.Fence, r.Revision = node, r.Fence+1, r.Revision+1
		s.sagas[r.ID] = r
		out = append(out, saga.Claimed{Record: r.Clone(), TakenOver: taken})
	}
	return out, nil
}

// Save implements saga.Store.
func (s *Store) Save(_ context.Context, r saga.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, ok := s.sagas[r.ID]
	switch {
	case !ok:
		return saga.ErrNotFound
	case stored.Fence != r.Fence || stored.Revision != r.Revision:
		return saga.ErrFenced
	case stored.SignalSeq != r.SignalSeq:
		return saga.ErrSignalled
	}
	r = r.Clone()
	r.Revision++
	r.UpdatedAt = time.Now().UTC()
	r.Signals = stored.Signals
	s.sagas[r.ID] = r
	return nil
}

// Signal implements saga.Store.
func (s *Store) Signal(_ context.Context, id, name string, payload []byte, check func(saga.Record) error) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.sagas[id]
	if !ok {
		return false, saga.ErrNotFound
	}
	r = r.Clone()
	if _, again := r.Signals[name]; again {
		return false, nil
	}
	if r.Status == saga.Completed || r.Status == saga.Compensated {
		return false, saga.ErrFinished
	}
	if err := check(r.Clone()); err != nil {
		return false, err
	}
	if r.Signals == nil {
		r.Signals = map[string][]byte{}
	}
	r.Signals[name] = slices.Clone(payload)
	r.SignalSeq++
	r.WakeAt = time.Now().UTC()
	s.sagas[id] = r
	return true, nil
}

// Heartbeat implements saga.Store.
func (s *Store) Heartbeat(_ context.Context, node string, lease time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[node] = time.Now().Add(lease)
	return nil
}

// Leave implements saga.Store.
func (s *Store) Leave(_ context.Context, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, node)
	return nil
}

// List implements saga.Store.
func (s *Store) List(_ context.Context, f saga.Filter) ([]saga.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []saga.Record
	for _, r := range s.sagas {
		if (f.Name == "" || f.Name == r.Name) && (len(f.Statuses) == 0 || slices.Contains(f.Statuses, r.Status)) && r.ID > f.After {
			out = append(out, r.Clone())
		}
	}
	slices.SortFunc(out, func(a, b saga.Record) int { return cmp.Compare(a.ID, b.ID) })
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	return out[:min(len(out), limit)], nil
}

// Shapes implements saga.Store.
func (s *Store) Shapes(_ context.Context, k saga.Kind) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.sagas {
		if r.Name == k.Name && r.Version == k.Version && !r.Status.Ended() && !slices.Contains(out, r.Shape) {
			out = append(out, r.Shape)
		}
	}
	return out, nil
}
