package authn

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// MemoryAPIKeys is an APIKeyStore for tests and single processes.
type MemoryAPIKeys struct {
	mu   sync.Mutex
	keys map[string]APIKey
}

// NewMemoryAPIKeys returns an empty store.
func NewMemoryAPIKeys() *MemoryAPIKeys { return &MemoryAPIKeys{keys: map[string]APIKey{}} }

// do calls fn with the keys, locked, unless the context has ended.
func (m *MemoryAPIKeys) do(ctx context.Context, fn func(keys map[string]APIKey) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return fn(m.keys)
}

// Create implements APIKeyStore.
func (m *MemoryAPIKeys) Create(ctx context.Context, k APIKey) error {
	return m.do(ctx, func(keys map[string]APIKey) error {
		if _, ok := keys[k.ID]; ok {
			return errors.New("authn: this API key exists")
		}
		k.Subject = k.Subject.clone()
		keys[k.ID] = k
		return nil
	})
}

// Lookup implements APIKeyStore.
func (m *MemoryAPIKeys) Lookup(ctx context.Context, id string) (k APIKey, err error) {
	err = m.do(ctx, func(keys map[string]APIKey) error {
		found, ok := keys[id]
		if !ok {
			return ErrAPIKey
		}
		k = found
		k.Subject = k.Subject.clone()
		return nil
	})
	return k, err
}

// List implements APIKeyStore.
func (m *MemoryAPIKeys) List(ctx context.Context, subject string) (list []APIKey, err error) {
	err = m.do(ctx, func(keys map[string]APIKey) error {
		for _, k := range keys {
			if k.Subject.ID == subject {
				k.Subject = k.Subject.clone()
				list = append(list, k)
			}
		}
		return nil
	})
	slices.SortFunc(list, func(a, b APIKey) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, err
}

// Rotate implements APIKeyStore.
func (m *MemoryAPIKeys) Rotate(ctx context.Context, r APIKeyRotation) error {
	return m.do(ctx, func(keys map[string]APIKey) error {
		k, ok := keys[r.ID]
		switch {
		case !ok:
			return ErrAPIKey
		case k.Hash != r.Old:
			return ErrKeyConflict
		}
		k.Hash, k.PreviousHash, k.PreviousUntil = r.Next, r.Old, r.PreviousUntil
		k.RotatedAt, k.ExpiresAt = r.Now, r.ExpiresAt
		keys[r.ID] = k
		return nil
	})
}

// Delete implements APIKeyStore.
func (m *MemoryAPIKeys) Delete(ctx context.Context, id string) error {
	return m.do(ctx, func(keys map[string]APIKey) error { delete(keys, id); return nil })
}

// DeleteSubject implements APIKeyStore.
func (m *MemoryAPIKeys) DeleteSubject(ctx context.Context, subject string) error {
	return m.do(ctx, func(keys map[string]APIKey) error {
		maps.DeleteFunc(keys, func(_ string, k APIKey) bool { return k.Subject.ID == subject })
		return nil
	})
}

// Purge implements APIKeyStore.
func (m *MemoryAPIKeys) Purge(ctx context.Context, now time.Time) (n int, err error) {
	err = m.do(ctx, func(keys map[string]APIKey) error {
		n = len(keys)
		maps.DeleteFunc(keys, func(_ string, k APIKey) bool { return k.expired(now) })
		n -= len(keys)
		return nil
	})
	return n, err
}
