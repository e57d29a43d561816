package authn

import (
	"context"
	"slices"
	"sync"
)

// KeyStore keeps signing keys where they survive a restart and where replicas share them. Package authntest checks
// implementations.
type KeyStore interface {
	// Load returns the keys and their version, 0 when nothing has been saved yet.
	Load(ctx context.Context) (keys []Key, version int64, err error)
	// Save replaces all keys, provided that their version still is the given one; otherwise it changes nothing and
	// returns ErrKeyConflict.
	Save(ctx context.Context, keys []Key, version int64) error
}

// MemoryKeys is a KeyStore for tests and single processes: the keys end with the process, and so do the tokens.
type MemoryKeys struct {
	mu      sync.Mutex
	keys    []Key
	version int64
}

// NewMemoryKeys returns an empty store.
func NewMemoryKeys() *MemoryKeys { return &MemoryKeys{} }

// Load implements KeyStore.
func (m *MemoryKeys) Load(ctx context.Context) ([]Key, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys), m.version, context.Cause(ctx)
}

// Save implements KeyStore.
func (m *MemoryKeys) Save(ctx context.Context, keys []Key, version int64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if version != m.version {
		return ErrKeyConflict
	}
	m.keys, m.version = slices.Clone(keys), version+1
	return nil
}
