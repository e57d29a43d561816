package mongorepo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/repository"
)

// ErrDoomed is returned by the outermost InTx when a nested one failed and the error was swallowed in between: nothing
// was committed.
var ErrDoomed = errors.New("mongorepo: a nested transaction failed, so the whole was rolled back")

// probeCollection holds nothing: see NewTransactor.
const probeCollection = "sillar_probe"

// Transactor runs functions in transactions of a MongoDB replica set. It is a repository.Transactor, and what a Repo on
// the same client does with the context joins. Most programs need none: a write is one document, and its effects lie
// in it.
type Transactor struct{ client *mongo.Client }

var _ repository.Transactor = (*Transactor)(nil)

// NewTransactor returns a Transactor after it has tried whether transactions are what they are called: it writes a
// document in one, rolls back, and looks. A server that refuses, or where the document exists afterwards, is
// repository.ErrNoTransactions; one that has no primary just now is not.
func NewTransactor(ctx context.Context, db *mongo.Database) (*Transactor, error) {
	if db == nil {
		return nil, errors.New("mongorepo: NewTransactor needs a database")
	}
	if err := probe(ctx, db); err != nil {
		return nil, fmt.Errorf("mongorepo: try a transaction in %s: %w", db.Name(), err)
	}
	return &Transactor{db.Client()}, nil
}

// errRollback ends the trial.
var errRollback = errors.New("to be rolled back")

func probe(ctx context.Context, db *mongo.Database) error {
	c := db.Collection(probeCollection,
		options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary()))
	mark := bson.D{{Key: "_id", Value: id.New()}}
	if _, err := c.DeleteOne(ctx, mark); err != nil { // also: the server answers
		return err
	}
	session, err := db.Client().StartSession()
	if err != nil {
		return fmt.Errorf("%w (a replica set is needed): %w", repository.ErrNoTransactions, err)
	}
	defer session.EndSession(context.WithoutCancel(ctx))
	// The collection is made by the insert: of processes that begin together all but one lose, and try again.
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		if _, err := c.InsertOne(ctx, mark); err != nil {
			return nil, err
		}
		return nil, errRollback
	}, safely)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	n, lerr := c.CountDocuments(ctx, mark)
	if lerr != nil {
		return lerr
	}
	if n > 0 {
		_, err := c.DeleteOne(ctx, mark)
		return errors.Join(fmt.Errorf("%w: a write survived its rollback", repository.ErrNoTransactions), err)
	}
	if !errors.Is(err, errRollback) {
		return none(err)
	}
	return nil
}

// none says that a refusal is one of transactions, unless it is one of the moment: of a network, or of a node that has
// ceased to be the primary.
func none(err error) error {
	var refused mongo.CommandError
	if !errors.As(err, &refused) || mongo.IsNetworkError(err) || slices.Contains(notPrimary, refused.Code) {
		return err
	}
	return fmt.Errorf("%w (a replica set is needed): %w", repository.ErrNoTransactions, err)
}

// notPrimary are the codes of nodes that shut down, step down, or have been elected too recently, or not.
// https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-discovery-and-monitoring.md#not-writable-primary-and-node-is-recovering
var notPrimary = []int32{91, 189, 10058, 10107, 11600, 11602, 13435, 13436}

// safely is how transactions run, whatever the client's defaults are.
var safely = options.Transaction().SetReadConcern(readconcern.Snapshot()).
	SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary())

type (
	txKey struct{ client *mongo.Client }
	tx    struct{ doomed bool }
)

// InTx runs fn in a transaction: the one that ctx carries, or else a new one, which it commits when fn returns nil. It
// reads a snapshot and is written to the majority. fn runs again when the transaction lost against another, for up to
// two minutes; its effects must stay inside the database. It must not use ctx concurrently: a session is no pool. When
// the commit's answer is lost the driver asks again for as long; after that it is not known whether it was committed.
func (t *Transactor) InTx(ctx context.Context, fn func(ctx context.Context) error) error {
	if outer, ok := ctx.Value(txKey{t.client}).(*tx); ok {
		ok := false
		defer func() { outer.doomed = outer.doomed || !ok }() // an error, a panic or Goexit
		if err := fn(ctx); err != nil {
			return err
		}
		ok = true
		return nil
	}
	session, err := t.client.StartSession()
	if err != nil {
		return fmt.Errorf("mongorepo: begin: %w", err)
	}
	defer session.EndSession(context.WithoutCancel(ctx)) // rolls back what is open
	var inside error                                     // fn's, or why it was not enough
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		own := &tx{}
		if inside = fn(context.WithValue(ctx, txKey{t.client}, own)); inside == nil && own.doomed {
			inside = ErrDoomed
		}
		if inside == nil {
			inside = ctx.Err()
		}
		return nil, inside
	}, safely)
	if err != nil && inside == nil {
		return fmt.Errorf("mongorepo: commit: %w", err)
	}
	return err
}
