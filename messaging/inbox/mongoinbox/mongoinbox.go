// Package mongoinbox applies each message once, on MongoDB without transactions: the note that a message was applied
// lies inside the document that its handler changes, and is written by the same atomic write.
//
//	inbox, err := mongoinbox.New(db, mongoinbox.Config{Collections: []string{"stock"}})
//	g := router.Group("stock", messaging.GroupConfig{Dedup: inbox})
//	messaging.Handle(g, "orders.created", func(ctx context.Context, m messaging.Message[OrderCreated]) error {
//		_, err := stock.Update(ctx, m.Data.SKU, func(ctx context.Context, s *Stock) error { // a mongorepo.Repo
//			if err := inbox.Apply(ctx); err != nil {
//				return err
//			}
//			s.Count -= m.Data.Quantity
//			return nil
//		})
//		return err
//	})
//
// # Guarantees
//
//   - A write whose function calls Apply happens once for each message and consumer, also when two deliveries of one
//     message are handled at the same time and create or change different documents, and when a handler fails after the
//     write. A unique index holds this, which EnsureIndexes makes; Once returns ErrNoIndex without it.
//   - With several collections a message is bound to the one of its first attempt, by a document in the collection
//     sillar_inbox; an attempt that writes to another one fails with ErrCollection.
//   - Where there is a replica set a duplicate is one when the majority has the note, whatever the client's defaults
//     are: no failover takes back a write whose message has been let go.
//   - Notes are kept for Config.Keep. A document that was deleted stays as a tombstone as long as it holds one.
//
// # What it does not do
//
// It covers one document: of a handler that writes several, each in its own way, only the writes that call Apply are
// noted, and a message counts as applied with the first. Handlers that write several documents must each time be able
// to go on where they stopped. A document that is the target of very many messages grows by all of Config.Keep.
package mongoinbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/repository/driver"
)

// Kind is the kind of the effects that are notes.
const Kind = "applied"

const field = "_effects" // mongorepo.EffectsField

// Errors of this package, to be compared with errors.Is.
var (
	// ErrApplied is returned by Apply when the message has been applied. The handler returns it as any other error;
	// Once takes it for a duplicate.
	ErrApplied = errors.New("mongoinbox: the message has been applied")
	// ErrNoIndex is returned by Once when a collection lacks the unique index that EnsureIndexes makes.
	ErrNoIndex = errors.New("mongoinbox: a collection has no unique index of notes: call EnsureIndexes")
	// ErrCollection is returned by Apply in a write to a collection that Config.Collections does not list, or to
	// another one than that of the first attempt at the message. A retry does not help: the handler has to write to one
	// collection.
	ErrCollection = errors.New("mongoinbox: the message belongs to another collection")
	// ErrNoMessage is returned by Apply outside Once.
	ErrNoMessage = errors.New("mongoinbox: the context belongs to no message")
)

// Config tunes an Inbox.
type Config struct {
	// Collections lists the collections whose documents hold notes. Required.
	Collections []string
	// Keep is how long a message is remembered. Default 7 days; negative: forever.
	Keep time.Duration
	// Logger gets failed purges (warn). Default slog.Default().
	Logger *slog.Logger
}

// Inbox is a messaging.Deduplicator. It is safe for concurrent use, in many processes.
type Inbox struct {
	db     *mongo.Database
	cfg    Config
	purged atomic.Int64
	// indexed says that all collections were seen to have their unique index.
	indexed atomic.Bool
}

// indexName is the name of the unique index of notes.
const indexName = "sillar_applied_once"

var _ messaging.Deduplicator = (*Inbox)(nil)

// New makes an inbox over collections of a database.
func New(db *mongo.Database, cfg Config) (*Inbox, error) {
	if db == nil || len(cfg.Collections) == 0 {
		return nil, errors.New("mongoinbox: New needs a database and Config.Collections")
	}
	if cfg.Keep == 0 {
		cfg.Keep = 7 * 24 * time.Hour
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &Inbox{db: db, cfg: cfg}, nil
}

// Must returns i or panics with err.
func Must(i *Inbox, err error) *Inbox {
	if err != nil {
		panic(err)
	}
	return i
}

// EnsureIndexes makes the unique index by which notes are found, and which keeps two documents of a collection from
// having the same note. Once needs it. Duplicate notes that are there already fail it. Two further indexes are those by
// which Purge finds what is old: without them it reads the whole collection.
func (i *Inbox) EnsureIndexes(ctx context.Context) error {
	notes := bson.D{{Key: field + ".kind", Value: Kind}}
	for _, name := range i.cfg.Collections {
		_, err := i.db.Collection(name).Indexes().CreateMany(ctx, []mongo.IndexModel{
			{Keys: bson.D{{Key: field + ".id", Value: 1}},
				Options: options.Index().SetName(indexName).SetUnique(true).SetPartialFilterExpression(notes)},
			{Keys: bson.D{{Key: field + ".created_at", Value: 1}},
				Options: options.Index().SetName("sillar_applied_when").SetPartialFilterExpression(notes)},
			{Keys: bson.D{{Key: "_deleted", Value: 1}},
				Options: options.Index().SetName("sillar_tombstones").SetPartialFilterExpression(
					bson.D{{Key: "_deleted", Value: true}})},
		})
		if err != nil {
			return fmt.Errorf("mongoinbox: make the indexes of %s: %w", name, err)
		}
	}
	if len(i.cfg.Collections) == 1 {
		return nil
	}
	_, err := i.db.Collection(bound).Indexes().CreateOne(ctx, mongo.IndexModel{
		Keys: bson.D{{Key: "created_at", Value: 1}}, Options: options.Index().SetName("sillar_bound_when")})
	if err != nil {
		return fmt.Errorf("mongoinbox: make the index of %s: %w", bound, err)
	}
	return nil
}

// checkIndexes returns ErrNoIndex unless all collections have the unique index. It asks the server until they do.
func (i *Inbox) checkIndexes(ctx context.Context) error {
	if i.indexed.Load() {
		return nil
	}
	for _, name := range i.cfg.Collections {
		c := i.db.Collection(name, options.Collection().SetReadPreference(readpref.Primary()))
		specs, err := c.Indexes().ListSpecifications(mongo.NewSessionContext(ctx, nil))
		if err != nil {
			return fmt.Errorf("mongoinbox: list the indexes of %s: %w", name, err)
		}
		if !slices.ContainsFunc(specs, func(s mongo.IndexSpecification) bool { return s.Name == indexName }) {
			return fmt.Errorf("%w: %s", ErrNoIndex, name)
		}
	}
	i.indexed.Store(true)
	return nil
}

type key struct{ inbox *Inbox }

// Once implements messaging.Deduplicator. fn has to call Apply in the write that is to happen once.
func (i *Inbox) Once(ctx context.Context, consumer, id string,
	fn func(ctx context.Context) error) (dup bool, err error) {
	if err := i.checkIndexes(ctx); err != nil {
		return false, err
	}
	note := consumer + "/" + id
	if dup, err = i.applied(ctx, note); err != nil {
		return false, err
	}
	if !dup {
		err = fn(context.WithValue(ctx, key{i}, note))
		// A write that lost to another one, of a different document, violates the unique index.
		if dup = errors.Is(err, ErrApplied) || mongo.IsDuplicateKeyError(err) &&
			strings.Contains(err.Error(), indexName); !dup {
			if err == nil {
				i.purgeSometimes(ctx)
			}
			return false, err
		}
	}
	if err := i.kept(ctx, note); err != nil {
		return false, err
	}
	return true, nil
}

// kept waits until the majority has a note that is there. Before, a failover can take it back with its write, and
// a consumer that has acknowledged the message by then has lost it.
func (i *Inbox) kept(ctx context.Context, note string) error {
	ctx = mongo.NewSessionContext(ctx, nil) // in a transaction one reads what that reads
	pause := backoff.Exponential(2*time.Millisecond, 200*time.Millisecond)
	for n := 1; ; n++ {
		kept, err := i.find(ctx, note, options.Collection().SetReadConcern(readconcern.Majority()))
		if kept || err != nil {
			return err
		}
		if there, err := i.applied(ctx, note); err != nil || !there {
			return errors.Join(fmt.Errorf("mongoinbox: the note of %s was taken back", note), err)
		}
		if err := backoff.Sleep(ctx, pause.Delay(n)); err != nil {
			return fmt.Errorf("mongoinbox: wait until the majority has the note of %s: %w", note, err)
		}
	}
}

// Apply notes in the write that ctx belongs to that its message is applied, or returns ErrApplied. The write is
// compared and set: when another one has come in between, its function runs again, and then finds the note.
func (i *Inbox) Apply(ctx context.Context) error {
	note, _ := ctx.Value(key{i}).(string)
	if note == "" {
		return ErrNoMessage
	}
	dup, err := i.applied(ctx, note)
	if err != nil {
		return err
	}
	if dup {
		return ErrApplied
	}
	if err := i.bind(ctx, note); err != nil {
		return err
	}
	if err := driver.Collect(ctx, driver.Effect{ID: note, Kind: Kind, CreatedAt: time.Now().UTC()}); err != nil {
		return fmt.Errorf("mongoinbox: apply: %w", err)
	}
	return nil
}

// bound is the collection of documents that bind messages to a collection.
const bound = "sillar_inbox"

// bind binds a message to the collection of the write that ctx belongs to. The unique indexes hold within a collection:
// two attempts that write to different ones would both succeed.
func (i *Inbox) bind(ctx context.Context, note string) error {
	collection := driver.EffectsCollection(ctx)
	if collection == "" {
		return nil // Collect returns the error
	}
	if !slices.Contains(i.cfg.Collections, collection) {
		return messaging.Permanent(fmt.Errorf("%w: %s is not in Config.Collections", ErrCollection, collection))
	}
	if len(i.cfg.Collections) == 1 {
		return nil
	}
	ctx = mongo.NewSessionContext(ctx, nil) // the binding stays, whatever becomes of a transaction
	c := i.db.Collection(bound,
		options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary()))
	_, err := c.InsertOne(ctx, bson.D{{Key: "_id", Value: note}, {Key: "collection", Value: collection},
		{Key: "created_at", Value: time.Now().UTC()}})
	if !mongo.IsDuplicateKeyError(err) {
		if err != nil {
			return fmt.Errorf("mongoinbox: bind a message to %s: %w", collection, err)
		}
		return nil
	}
	var first struct {
		Collection string `bson:"collection"`
	}
	if err := c.FindOne(ctx, bson.D{{Key: "_id", Value: note}}).Decode(&first); err != nil {
		return fmt.Errorf("mongoinbox: read what a message is bound to: %w", err)
	}
	if first.Collection != collection {
		return messaging.Permanent(fmt.Errorf("%w: it is bound to %s, and the handler writes to %s", ErrCollection,
			first.Collection, collection))
	}
	return nil
}

func (i *Inbox) applied(ctx context.Context, note string) (bool, error) {
	return i.find(ctx, note, options.Collection())
}

// find looks where it is written: another node may not have the note yet.
func (i *Inbox) find(ctx context.Context, note string, as *options.CollectionOptionsBuilder) (bool, error) {
	filter := bson.D{{Key: field + ".kind", Value: Kind}, {Key: field + ".id", Value: note},
		{Key: field, Value: bson.D{{Key: "$elemMatch", Value: bson.D{{Key: "id", Value: note}, {Key: "kind", Value: Kind}}}}}}
	for _, name := range i.cfg.Collections {
		err := i.db.Collection(name, as.SetReadPreference(readpref.Primary())).FindOne(ctx, filter,
			options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, mongo.ErrNoDocuments) {
			return false, fmt.Errorf("mongoinbox: look for a note in %s: %w", name, err)
		}
	}
	return false, nil
}

// purgeEvery is how often old notes are looked for, by each process.
const purgeEvery = 10 * time.Minute

func (i *Inbox) purgeSometimes(ctx context.Context) {
	now, last := time.Now().UnixMicro(), i.purged.Load()
	if i.cfg.Keep < 0 || now-last < purgeEvery.Microseconds() || !i.purged.CompareAndSwap(last, now) {
		return
	}
	if err := i.Purge(ctx); err != nil && ctx.Err() == nil {
		i.cfg.Logger.WarnContext(ctx, "mongoinbox: old notes could not be removed", "error", err)
	}
}

// Purge removes notes that are older than Config.Keep, and tombstones that held only those. Once does it by itself now
// and then.
func (i *Inbox) Purge(ctx context.Context) error {
	if i.cfg.Keep < 0 {
		return nil
	}
	expired := bson.E{Key: "created_at", Value: bson.D{{Key: "$lt", Value: time.Now().Add(-i.cfg.Keep)}}}
	if len(i.cfg.Collections) > 1 {
		if _, err := i.db.Collection(bound).DeleteMany(ctx, bson.D{expired}); err != nil {
			return fmt.Errorf("mongoinbox: purge %s: %w", bound, err)
		}
	}
	old := bson.D{{Key: "kind", Value: Kind}, expired}
	for _, name := range i.cfg.Collections {
		c := i.db.Collection(name, options.Collection().SetWriteConcern(writeconcern.Majority()))
		_, err := c.UpdateMany(ctx, bson.D{{Key: field + ".kind", Value: Kind}, // which the index asks for
			{Key: field + ".created_at", Value: expired.Value}, {Key: field, Value: bson.D{{Key: "$elemMatch", Value: old}}}},
			bson.D{{Key: "$pull", Value: bson.D{{Key: field, Value: old}}}})
		if err == nil {
			_, err = c.DeleteMany(ctx, bson.D{{Key: "_deleted", Value: true},
				{Key: field + ".0", Value: bson.D{{Key: "$exists", Value: false}}}})
		}
		if err != nil {
			return fmt.Errorf("mongoinbox: purge %s: %w", name, err)
		}
	}
	return nil
}
