package vaultkeys

import (
	"context"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/secrets/vault"
)

// Store is an authn.KeyStore.
type Store struct {
	client      *vault.Client
	mount, path string
}

var _ authn.KeyStore = (*Store)(nil)

// field holds the keys in the secret.
const field = "keys"

// New returns the store in a secret of its own, which need not exist.
func New(client *vault.Client, mount, path string) (*Store, error) {
	if client == nil || mount == "" || path == "" {
		return nil, errors.New("vaultkeys: a client, a mount and a path are needed")
	}
	return &Store{client, mount, path}, nil
}

// Must returns s or panics with err.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// Load implements authn.KeyStore. It reads past the client's cache.
func (s *Store) Load(ctx context.Context) ([]authn.Key, int64, error) {
	d, err := s.client.ReadVersion(ctx, s.mount, s.path, 0)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("vaultkeys: load: %w", err)
	}
	text, ok := d.Get(field)
	if !ok {
		return nil, 0, errors.New("vaultkeys: the secret holds something else than keys")
	}
	keys, err := authn.DecodeKeys([]byte(text.Reveal()))
	if err != nil {
		return nil, 0, err
	}
	return keys, int64(d.Version), nil
}

// Save implements authn.KeyStore.
func (s *Store) Save(ctx context.Context, keys []authn.Key, version int64) error {
	text, err := authn.EncodeKeys(keys)
	if err != nil {
		return err
	}
	_, err = s.client.Write(ctx, s.mount, s.path, map[string]any{field: string(text)}, int(version))
	if errors.Is(err, vault.ErrConflict) {
		return authn.ErrKeyConflict
	}
	if err != nil {
		return fmt.Errorf("vaultkeys: save: %w", err)
	}
	return nil
}
