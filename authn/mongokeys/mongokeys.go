// Package mongokeys keeps signing keys in MongoDB, so that the replicas of an issuer share them. It has the guarantees
// of package sqlkeys: private keys are encrypted with a key that is not in the database, and of replicas that rotate at
// once one wins.
//
//	store, err := mongokeys.New(db, mongokeys.Config{Secret: secret}) // db is a *mongo.Database
//	keys, err := authn.NewKeySet(store, authn.KeyConfig{})
package mongokeys

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sillar-go/sillar/authn"
)

// Config tunes a Store. Secret is required.
type Config struct {
	// Secret encrypts the private keys: at least 32 bytes from a secret store, the same in all replicas. Required.
	Secret []byte
	// Previous are secrets that keys may still be encrypted with, while Secret is being replaced.
	Previous [][]byte
	// Name tells key sets of one database apart. Default "default".
	Name string
	// Prefix is the beginning of the name of the collection. Default "sillar_".
	Prefix string
}

// Store is an authn.KeyStore. It is safe for concurrent use.
type Store struct {
	cfg  Config
	keys *mongo.Collection
}

var _ authn.KeyStore = (*Store)(nil)

// document holds a key set.
type document struct {
	Name    string `bson:"_id"`
	Version int64  `bson:"version"`
	Sealed  []byte `bson:"sealed"`
}

// New returns the store in db. A Secret that is too short gives authn.ErrWeakKey.
func New(db *mongo.Database, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("mongokeys: a database is needed")
	}
	for _, s := range append([][]byte{cfg.Secret}, cfg.Previous...) {
		if _, err := authn.EncryptKeys(nil, 0, s); err != nil {
			return nil, fmt.Errorf("mongokeys: Config.Secret: %w", err)
		}
	}
	cfg.Name, cfg.Prefix = cmp.Or(cfg.Name, "default"), cmp.Or(cfg.Prefix, "sillar_")
	safe := options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary())
	return &Store{cfg, db.Collection(cfg.Prefix+"signing_keys", safe)}, nil
}

// Must returns s, or panics with err when it is not nil.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// alone returns a context that carries no session, and so no transaction.
func alone(ctx context.Context) context.Context { return mongo.NewSessionContext(ctx, nil) }

// Load implements authn.KeyStore.
func (s *Store) Load(ctx context.Context) ([]authn.Key, int64, error) {
	var d document
	err := s.keys.FindOne(alone(ctx), bson.D{{Key: "_id", Value: s.cfg.Name}}).Decode(&d)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("mongokeys: load: %w", err)
	}
	keys, err := authn.DecryptKeys(d.Sealed, d.Version, append([][]byte{s.cfg.Secret}, s.cfg.Previous...)...)
	if err != nil {
		return nil, 0, fmt.Errorf("mongokeys: load: %w", err)
	}
	return keys, d.Version, nil
}

// Save implements authn.KeyStore.
func (s *Store) Save(ctx context.Context, keys []authn.Key, version int64) error {
	sealed, err := authn.EncryptKeys(keys, version+1, s.cfg.Secret)
	if err != nil {
		return fmt.Errorf("mongokeys: save: %w", err)
	}
	next := document{s.cfg.Name, version + 1, sealed}
	if version == 0 {
		_, err := s.keys.InsertOne(alone(ctx), next)
		switch {
		case mongo.IsDuplicateKeyError(err):
			return authn.ErrKeyConflict
		case err != nil:
			return fmt.Errorf("mongokeys: save: %w", err)
		}
		return nil
	}
	unchanged := bson.D{{Key: "_id", Value: s.cfg.Name}, {Key: "version", Value: version}}
	res, err := s.keys.ReplaceOne(alone(ctx), unchanged, next)
	if err != nil {
		return fmt.Errorf("mongokeys: save: %w", err)
	}
	if res.MatchedCount == 0 {
		return authn.ErrKeyConflict
	}
	return nil
}
