// Package sagamem keeps sagas in memory: for tests, examples, and programs whose sagas may end with the process.
//
//	o, err := saga.New(sagamem.New(), saga.Config{}, PlaceOrder)
package sagamem

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// Store is a saga.Store. It is safe for concurrent use, also by several orchestrators.
type Store struct {
	mu     sync.Mutex
	sagas  map[string]saga.Record
	index  index
	owners map[string]int               // how many unfinished sagas a node owns
	shapes map[saga.Kind]map[string]int // how many unfinished sagas there are of a shape
	leases map[string]time.Time
}

var _ saga.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{sagas: map[string]saga.Record{}, owners: map[string]int{}, shapes: map[saga.Kind]map[string]int{},
		leases: map[string]time.Time{}}
}

// put stores a record and keeps the indexes. The store's mutex is held.
func (s *Store) put(r saga.Record) {
	if old, ok := s.sagas[r.ID]; ok {
		for _, key := range keys(old) {
			s.index.remove(key)
		}
		s.count(old, -1)
	}
	s.sagas[r.ID] = r
	for _, key := range keys(r) {
		s.index.add(key)
	}
	s.count(r, 1)
}

// count adds n to the counters of an unfinished saga. A counter that reaches 0 is deleted.
func (s *Store) count(r saga.Record, n int) {
	if r.Status.Ended() {
		return
	}
	kind := saga.Kind{Name: r.Name, Version: r.Version}
	if s.shapes[kind] == nil {
		s.shapes[kind] = map[string]int{}
	}
	if s.shapes[kind][r.Shape] += n; s.shapes[kind][r.Shape] == 0 {
		delete(s.shapes[kind], r.Shape)
	}
	if r.Owner == "" {
		return
	}
	if s.owners[r.Owner] += n; s.owners[r.Owner] == 0 {
		delete(s.owners, r.Owner)
	}
}

// Insert implements saga.Store.
func (s *Store) Insert(_ context.Context, r saga.Record) (saga.Record, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stored, ok := s.sagas[r.ID]; ok {
		return stored.Clone(), false, nil
	}
	r.Revision = 1
	s.put(r.Clone())
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
	for _, k := range kinds {
		of, n := kindKey(k), 0
		for key := range s.index.from(of) {
			if n++; !strings.HasPrefix(key, of) || n > limit {
				break
			}
			r := s.sagas[key[len(of)+8:]]
			if r.WakeAt.After(now) {
				break
			}
			due = append(due, r)
		}
	}
	for owner := range s.owners {
		if s.leases[owner].After(now) {
			continue
		}
		n := 0
		for id := range s.index.rests(ownedKey(owner, ""), "") {
			r := s.sagas[id]
			if !slices.Contains(kinds, saga.Kind{Name: r.Name, Version: r.Version}) {
				continue
			}
			if n++; n > limit {
				break
			}
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b saga.Record) int {
		return cmp.Or(a.WakeAt.Compare(b.WakeAt), cmp.Compare(a.ID, b.ID))
	})
	var out []saga.Claimed
	for _, r := range due[:min(limit, len(due))] {
		taken := r.Owner != ""
		r.Owner, r.Fence, r.Revision = node, r.Fence+1, r.Revision+1
		s.put(r)
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
	s.put(r)
	return nil
}

// Signal implements saga.Store.
func (s *Store) Signal(
	_ context.Context,
	id, name string,
	payload func(saga.Record) ([]byte, error),
) (bool, error) {
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
	raw, err := payload(r.Clone())
	if err != nil {
		return false, err
	}
	if r.Signals == nil {
		r.Signals = map[string][]byte{}
	}
	r.Signals[name] = slices.Clone(raw)
	r.SignalSeq++
	r.WakeAt = time.Now().UTC()
	s.put(r)
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
	if f.Limit <= 0 {
		f.Limit = 100
	}
	ids := s.selected(f)
	out := make([]saga.Record, 0, len(ids))
	for _, id := range ids {
		out = append(out, s.sagas[id].Clone())
	}
	return out, nil
}

// Count implements saga.Store.
func (s *Store) Count(_ context.Context, f saga.Filter) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Limit <= 0 {
		f.Limit = 10_000
	}
	return len(s.selected(f)), nil
}

// selected returns the ids of up to f.Limit sagas in the order of their start. It reads no more than it returns for
// each status, or all sagas with the attribute, or those of f.IDs. The store's mutex is held.
func (s *Store) selected(f saga.Filter) []string {
	after := ""
	if !f.Since.IsZero() {
		after = at(f.Since, f.After)
	}
	of := f.Statuses
	if len(of) == 0 {
		of = []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck}
	}
	var prefixes []string
	switch {
	case f.Attribute != "":
		prefixes = []string{attributeKey(f.Attribute, f.Value)}
	default:
		for _, status := range of {
			if f.Name != "" {
				prefixes = append(prefixes, nameKey(f.Name, status))
			} else {
				prefixes = append(prefixes, statusKey(status))
			}
		}
	}
	var rests []string
	if len(f.IDs) > 0 {
		for _, id := range f.IDs {
			if r, ok := s.sagas[id]; ok && at(r.CreatedAt, id) > after && fits(f, of, r) {
				rests = append(rests, at(r.CreatedAt, id))
			}
		}
	} else {
		for _, prefix := range prefixes {
			n := 0
			for rest := range s.index.rests(prefix, after) {
				r := s.sagas[rest[8:]]
				if !f.Until.IsZero() && !r.CreatedAt.Before(f.Until) || n == f.Limit {
					break
				}
				if fits(f, of, r) {
					rests = append(rests, rest)
					n++
				}
			}
		}
	}
	slices.Sort(rests)
	rests = slices.Compact(rests)
	rests = rests[:min(f.Limit, len(rests))]
	for i := range rests {
		rests[i] = rests[i][8:]
	}
	return rests
}

// fits reports whether a filter selects a saga, but for its times.
func fits(f saga.Filter, of []saga.Status, r saga.Record) bool {
	return (f.Name == "" || r.Name == f.Name) && slices.Contains(of, r.Status) &&
		(f.Attribute == "" || r.Attributes()[f.Attribute] == f.Value) &&
		(f.Until.IsZero() || r.CreatedAt.Before(f.Until))
}

// Delete implements saga.Store.
func (s *Store) Delete(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.sagas[id]
	switch {
	case !ok:
		return saga.ErrNotFound
	case !r.Status.Ended():
		return saga.ErrUnfinished
	}
	s.remove(r)
	return nil
}

// remove deletes a saga that has ended. The store's mutex is held.
func (s *Store) remove(r saga.Record) {
	for _, key := range keys(r) {
		s.index.remove(key)
	}
	delete(s.sagas, r.ID)
}

// Prune implements saga.Store.
func (s *Store) Prune(_ context.Context, before time.Time, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var old []saga.Record
	for rest := range s.index.rests(endedKey(), "") {
		r := s.sagas[rest[8:]]
		if len(old) == limit || !r.UpdatedAt.Before(before) {
			break
		}
		old = append(old, r)
	}
	for _, r := range old {
		s.remove(r)
	}
	return len(old), nil
}

// Shapes implements saga.Store.
func (s *Store) Shapes(_ context.Context, k saga.Kind) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.shapes[k])), nil
}
