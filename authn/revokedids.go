package authn

import (
	"context"
	"maps"
	"sync"
	"time"
)

// RevokedIDs holds revoked token ids in memory, for a service that does not share the TokenStore of the issuer. The
// service calls Add when it learns of a revocation, for example in a handler of the event tokens.revoked. After a
// restart it is empty: revoked tokens are accepted again until they expire.
type RevokedIDs struct {
	mu   sync.RWMutex
	max  int
	ids  map[string]time.Time
	next time.Time // when to look for expired ones
}

// NewRevokedIDs returns a memory of at most limit ids; 0 means 100,000. When it is full, the id whose token expires
// first makes room.
func NewRevokedIDs(limit int) *RevokedIDs {
	if limit <= 0 {
		limit = 100_000
	}
	return &RevokedIDs{max: limit, ids: map[string]time.Time{}}
}

// Add remembers a token id until its token has expired.
func (r *RevokedIDs) Add(id string, until time.Time) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !now.Before(r.next) || len(r.ids) >= r.max {
		maps.DeleteFunc(r.ids, func(_ string, t time.Time) bool { return !now.Before(t) })
		r.next = now.Add(purgeEvery)
	}
	if _, known := r.ids[id]; !known && len(r.ids) >= r.max {
		first, at := "", time.Time{}
		for i, t := range r.ids {
			if first == "" || t.Before(at) {
				first, at = i, t
			}
		}
		delete(r.ids, first)
	}
	if until.After(r.ids[id]) {
		r.ids[id] = until
	}
}

// Revoked implements Revocations.
func (r *RevokedIDs) Revoked(_ context.Context, id string) (bool, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.ids[id]
	return ok, nil
}
