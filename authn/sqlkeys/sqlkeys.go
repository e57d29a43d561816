package sqlkeys

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations are the tables, for package migrate and sqldb.SchemaSQL.
//
//go:embed migrations
var Migrations embed.FS

// Config tunes a Store. Secret is required.
type Config struct {
	// Secret encrypts the private keys: at least 32 bytes from a secret store, the same in all replicas. Required.
	Secret []byte
	// Previous are secrets that keys may still be encrypted with, while Secret is being replaced.
	Previous [][]byte
	// Name tells key sets of one database apart. Default "default".
	Name string
	// Prefix is the beginning of the names of the tables. Default "sillar_".
	Prefix string
}

// Store is an authn.KeyStore. It is safe for concurrent use.
type Store struct {
	db            *sqldb.DB
	cfg           Config
	prefix, table string
}

var _ authn.KeyStore = (*Store)(nil)

// New returns the store in db. A Secret that is too short gives authn.ErrWeakKey.
func New(db *sqldb.DB, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlkeys: a database is needed")
	}
	p, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("sqlkeys: %w", err)
	}
	for _, s := range append([][]byte{cfg.Secret}, cfg.Previous...) {
		if _, err := authn.EncryptKeys(nil, 0, s); err != nil {
			return nil, fmt.Errorf("sqlkeys: Config.Secret: %w", err)
		}
	}
	cfg.Name = cmp.Or(cfg.Name, "default")
	return &Store{db: db, cfg: cfg, prefix: p, table: p + "signing_keys"}, nil
}

// Must returns s, or panics with err when it is not nil.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// EnsureSchema creates the table that does not exist yet.
func (s *Store) EnsureSchema(ctx context.Context) error {
	return s.db.EnsureSchema(ctx, Migrations, s.prefix)
}

// Load implements authn.KeyStore.
func (s *Store) Load(ctx context.Context) ([]authn.Key, int64, error) {
	ctx = s.db.WithoutTx(ctx)
	var version int64
	var sealed []byte
	err := s.db.Querier(ctx).
		QueryRow(ctx, "SELECT version, sealed FROM "+s.table+" WHERE name = $1", s.cfg.Name).
		Scan(&version, &sealed)
	if errors.Is(err, sqldb.ErrNoRows) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("sqlkeys: load: %w", err)
	}
	keys, err := authn.DecryptKeys(sealed, version, append([][]byte{s.cfg.Secret}, s.cfg.Previous...)...)
	if err != nil {
		return nil, 0, fmt.Errorf("sqlkeys: load: %w", err)
	}
	return keys, version, nil
}

// Save implements authn.KeyStore.
func (s *Store) Save(ctx context.Context, keys []authn.Key, version int64) error {
	ctx = s.db.WithoutTx(ctx)
	sealed, err := authn.EncryptKeys(keys, version+1, s.cfg.Secret)
	if err != nil {
		return fmt.Errorf("sqlkeys: save: %w", err)
	}
	query := "UPDATE " + s.table + " SET version = version + 1, sealed = $2 WHERE name = $1 AND version = $3"
	if version == 0 {
		query = "INSERT INTO " + s.table + " (name, version, sealed) VALUES ($1, $3 + 1, $2) ON CONFLICT (name) DO NOTHING"
	}
	n, err := s.db.Querier(ctx).Exec(ctx, query, s.cfg.Name, sealed, version)
	if err != nil {
		return fmt.Errorf("sqlkeys: save: %w", err)
	}
	if n == 0 {
		return authn.ErrKeyConflict
	}
	return nil
}
