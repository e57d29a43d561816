// Package mongoapikeys keeps API keys in MongoDB, so that they survive a restart and replicas share them. It needs no
// transactions and no replica set, and takes part in no transaction of the caller.
//
//	store, err := mongoapikeys.New(db, mongoapikeys.Config{}) // db is a *mongo.Database
//	err = store.EnsureIndexes(ctx)
//	keys, err := authn.NewAPIKeys(store, authn.APIKeyConfig{Prefix: "shop"})
//
// # Guarantees
//
//   - Keys are stored as hashes: a copy of the database contains no usable key.
//   - A rotation is one atomic write. When one key is rotated twice at the same time, one rotation succeeds.
//   - Writes are acknowledged by the majority where there is a replica set, and reads are from the primary: a key that
//     was revoked is refused after a failover too.
//
// # What it does not do
//
// It deletes no expired keys by itself: call Purge regularly.
package mongoapikeys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/internal/record"
)

// Config tunes a Store. The zero Config is useful.
type Config struct {
	// Prefix is the beginning of the name of the collection. Default "sillar_".
	Prefix string
}

// Store is an authn.APIKeyStore. It is safe for concurrent use.
type Store struct {
	keys *mongo.Collection
}

var _ authn.APIKeyStore = (*Store)(nil)

// document is a key. Times are microseconds since 1970, 0 for none.
type document struct {
	ID            string `bson:"_id"`
	Subject       string `bson:"subject"`
	Name          string `bson:"name"`
	Profile       string `bson:"profile"` // roles, scopes and claims, JSON
	Hash          string `bson:"hash"`
	PreviousHash  string `bson:"previous_hash"`
	PreviousUntil int64  `bson:"previous_until"`
	Created       int64  `bson:"created"`
	Rotated       int64  `bson:"rotated"`
	Expires       int64  `bson:"expires"`
}

// New returns the store in db.
func New(db *mongo.Database, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("mongoapikeys: a database is needed")
	}
	safe := options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary())
	return &Store{db.Collection(cmp.Or(cfg.Prefix, "sillar_")+"api_keys", safe)}, nil
}

// Must returns s, or panics with err when it is not nil.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// EnsureIndexes makes the indexes where they do not exist yet. Without them List and Purge read all keys.
func (s *Store) EnsureIndexes(ctx context.Context) error {
	_, err := s.keys.Indexes().CreateMany(ctx, []mongo.IndexModel{
		{Keys: bson.D{{Key: "subject", Value: 1}}}, {Keys: bson.D{{Key: "expires", Value: 1}}},
	})
	if err != nil {
		return fmt.Errorf("mongoapikeys: make the indexes: %w", err)
	}
	return nil
}

// alone returns a context that carries no session, and so no transaction.
func alone(ctx context.Context) context.Context { return mongo.NewSessionContext(ctx, nil) }

func byID(id string) bson.D { return bson.D{{Key: "_id", Value: id}} }

func bySubject(subject string) bson.D { return bson.D{{Key: "subject", Value: subject}} }

func (d document) decode() (authn.APIKey, error) {
	subject, err := record.Subject(d.Subject, d.Profile)
	if err != nil {
		return authn.APIKey{}, fmt.Errorf("mongoapikeys: read a key: %w", err)
	}
	return authn.APIKey{
		ID: d.ID, Name: d.Name, Subject: subject, Hash: d.Hash, PreviousHash: d.PreviousHash,
		PreviousUntil: record.Time(d.PreviousUntil),
		CreatedAt:     record.Time(d.Created), RotatedAt: record.Time(d.Rotated), ExpiresAt: record.Time(d.Expires),
	}, nil
}

// Create implements authn.APIKeyStore.
func (s *Store) Create(ctx context.Context, k authn.APIKey) error {
	profile, err := record.Profile(k.Subject)
	if err != nil {
		return fmt.Errorf("mongoapikeys: create: %w", err)
	}
	_, err = s.keys.InsertOne(alone(ctx), document{
		ID: k.ID, Subject: k.Subject.ID, Name: k.Name, Profile: profile, Hash: k.Hash, PreviousHash: k.PreviousHash,
		PreviousUntil: record.Micros(k.PreviousUntil), Created: record.Micros(k.CreatedAt),
		Rotated: record.Micros(k.RotatedAt),
		Expires: record.Micros(k.ExpiresAt),
	})
	if err != nil {
		return fmt.Errorf("mongoapikeys: create: %w", err)
	}
	return nil
}

// Lookup implements authn.APIKeyStore.
func (s *Store) Lookup(ctx context.Context, id string) (authn.APIKey, error) {
	var d document
	err := s.keys.FindOne(alone(ctx), byID(id)).Decode(&d)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return authn.APIKey{}, authn.ErrAPIKey
	}
	if err != nil {
		return authn.APIKey{}, fmt.Errorf("mongoapikeys: look up: %w", err)
	}
	return d.decode()
}

// List implements authn.APIKeyStore.
func (s *Store) List(ctx context.Context, subject string) ([]authn.APIKey, error) {
	ctx = alone(ctx)
	order := options.Find().SetSort(bson.D{{Key: "created", Value: 1}, {Key: "_id", Value: 1}})
	found, err := s.keys.Find(ctx, bySubject(subject), order)
	if err != nil {
		return nil, fmt.Errorf("mongoapikeys: list: %w", err)
	}
	var docs []document
	if err := found.All(ctx, &docs); err != nil {
		return nil, fmt.Errorf("mongoapikeys: list: %w", err)
	}
	list := make([]authn.APIKey, len(docs))
	for i, d := range docs {
		if list[i], err = d.decode(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Rotate implements authn.APIKeyStore.
func (s *Store) Rotate(ctx context.Context, r authn.APIKeyRotation) error {
	ctx = alone(ctx)
	res, err := s.keys.UpdateOne(ctx, append(byID(r.ID), bson.E{Key: "hash", Value: r.Old}),
		bson.D{{Key: "$set", Value: bson.D{
			{Key: "hash", Value: r.Next},
			{Key: "previous_hash", Value: r.Old},
			{Key: "previous_until", Value: record.Micros(r.PreviousUntil)},
			{Key: "rotated", Value: record.Micros(r.Now)},
			{Key: "expires", Value: record.Micros(r.ExpiresAt)},
		}}})
	if err != nil {
		return fmt.Errorf("mongoapikeys: rotate: %w", err)
	}
	if res.MatchedCount > 0 {
		return nil
	}
	if _, err := s.Lookup(ctx, r.ID); err != nil {
		return err
	}
	return authn.ErrKeyConflict
}

// Delete implements authn.APIKeyStore.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.delete(ctx, byID(id))
	return err
}

// DeleteSubject implements authn.APIKeyStore.
func (s *Store) DeleteSubject(ctx context.Context, subject string) error {
	_, err := s.delete(ctx, bySubject(subject))
	return err
}

// Purge implements authn.APIKeyStore.
func (s *Store) Purge(ctx context.Context, now time.Time) (int, error) {
	expired := bson.D{{Key: "$gt", Value: int64(0)}, {Key: "$lte", Value: record.Micros(now)}}
	return s.delete(ctx, bson.D{{Key: "expires", Value: expired}})
}

// delete uses DeleteMany for one document too: FerretDB's DeleteOne passes over a document that is just being changed.
func (s *Store) delete(ctx context.Context, filter bson.D) (int, error) {
	res, err := s.keys.DeleteMany(alone(ctx), filter)
	if err != nil {
		return 0, fmt.Errorf("mongoapikeys: delete: %w", err)
	}
	return int(res.DeletedCount), nil
}
