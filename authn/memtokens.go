package authn

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// MemoryTokens is a TokenStore for tests and single processes. What has expired is forgotten as new entries come.
type MemoryTokens struct {
	mu      sync.Mutex
	tokens  map[string]RefreshToken
	revoked map[string]time.Time
	purgeAt time.Time
}

// NewMemoryTokens returns an empty store.
func NewMemoryTokens() *MemoryTokens {
	return &MemoryTokens{tokens: map[string]RefreshToken{}, revoked: map[string]time.Time{}}
}

// purgeEvery is how often a memory store looks for what has expired.
const purgeEvery = time.Minute

// lock takes the lock for a call of the given context.
func (m *MemoryTokens) lock(ctx context.Context) (unlock func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	return m.mu.Unlock, nil
}

// Create implements TokenStore.
func (m *MemoryTokens) Create(ctx context.Context, s RefreshToken) error {
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return m.add(s)
}

func (m *MemoryTokens) add(s RefreshToken) error {
	if _, ok := m.tokens[s.Hash]; ok {
		return errors.New("authn: this refresh token exists")
	}
	if now := time.Now(); !now.Before(m.purgeAt) {
		m.purge(now)
		m.purgeAt = now.Add(purgeEvery)
	}
	m.tokens[s.Hash] = cloneToken(s)
	return nil
}

// cloneToken copies what callers could change.
func cloneToken(s RefreshToken) RefreshToken {
	s.Subject = s.Subject.clone()
	return s
}

// Lookup implements TokenStore.
func (m *MemoryTokens) Lookup(ctx context.Context, hash string) (RefreshToken, error) {
	unlock, err := m.lock(ctx)
	if err != nil {
		return RefreshToken{}, err
	}
	defer unlock()
	s, ok := m.tokens[hash]
	if !ok {
		return RefreshToken{}, ErrRefresh
	}
	return cloneToken(s), nil
}

// Rotate implements TokenStore.
func (m *MemoryTokens) Rotate(ctx context.Context, r Rotation) error {
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, ok := m.tokens[r.Old]
	if !ok || !r.Now.Before(s.ExpiresAt) || s.Subject.ID != r.Next.Subject.ID {
		return ErrRefresh
	}
	if r.Reused(!s.UsedAt.IsZero(), s.UsedAt) {
		m.drop(func(x RefreshToken) bool { return x.Family == s.Family })
		return ErrReused
	}
	if err := m.add(r.Next); err != nil {
		return err
	}
	if s.UsedAt.IsZero() {
		s.UsedAt = r.Now
		m.tokens[r.Old] = s
	}
	return nil
}

func (m *MemoryTokens) drop(which func(RefreshToken) bool) int {
	before := len(m.tokens)
	maps.DeleteFunc(m.tokens, func(_ string, s RefreshToken) bool { return which(s) })
	return before - len(m.tokens)
}

// Sessions implements TokenStore.
func (m *MemoryTokens) Sessions(ctx context.Context, subject string, now time.Time) ([]RefreshToken, error) {
	unlock, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var tokens []RefreshToken
	for _, s := range m.tokens {
		if s.Subject.ID == subject && now.Before(s.ExpiresAt) {
			tokens = append(tokens, cloneToken(s))
		}
	}
	return newestOfFamilies(tokens), nil
}

// RevokeFamily implements TokenStore.
func (m *MemoryTokens) RevokeFamily(ctx context.Context, family string) error {
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	m.drop(func(s RefreshToken) bool { return s.Family == family })
	return nil
}

// RevokeSubject implements TokenStore.
func (m *MemoryTokens) RevokeSubject(ctx context.Context, subject string) error {
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	m.drop(func(s RefreshToken) bool { return s.Subject.ID == subject })
	return nil
}

// RevokeID implements TokenStore.
func (m *MemoryTokens) RevokeID(ctx context.Context, id string, until time.Time) error {
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if now := time.Now(); !now.Before(m.purgeAt) {
		m.purge(now)
		m.purgeAt = now.Add(purgeEvery)
	}
	if until.After(m.revoked[id]) {
		m.revoked[id] = until
	}
	return nil
}

// Revoked implements Revocations.
func (m *MemoryTokens) Revoked(ctx context.Context, id string) (bool, error) {
	unlock, err := m.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	_, ok := m.revoked[id]
	return ok, nil
}

// Purge implements TokenStore.
func (m *MemoryTokens) Purge(ctx context.Context, now time.Time) (int, error) {
	unlock, err := m.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return m.purge(now), nil
}

func (m *MemoryTokens) purge(now time.Time) int {
	n := m.drop(func(s RefreshToken) bool { return !now.Before(s.ExpiresAt) })
	before := len(m.revoked)
	maps.DeleteFunc(m.revoked, func(_ string, until time.Time) bool { return !now.Before(until) })
	return n + before - len(m.revoked)
}
