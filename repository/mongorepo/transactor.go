package mongorepo

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
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
// document in one, rolls back, and looks. A server that refuses, or where the document is there all the same, is
// repository.ErrNoTransactions.
func NewTransactor(ctx context.Context, db *mongo.Database) (*Transactor, error) {
	if db == nil {
		return nil, errors.New("mongorepo: NewTransactor needs a database")
	}
	if err := probe(ctx, db); err != nil {
		return nil, fmt.Errorf("mongorepo: try a transaction in %s: %w", db.Name(), err)
	}
	return &Transactor{db.Client()}, nil
}

func probe(ctx context.Context, db *mongo.Database) error {
	c := db.Collection(probeCollection, options.Collection().SetWriteConcern(writeconcern.Majority()))
	mark := bson.D{{Key: "_id", Value: id.New()}}
	if _, err := c.DeleteOne(ctx, mark); err != nil { // also: the server answers
		return err
	}
	session, err := db.Client().StartSession()
	if err != nil {
		return fmt.Errorf("%w (a replica set is needed): %w", repository.ErrNoTransactions, err)
	}
	defer session.EndSession(context.WithoutCancel(ctx))
	if err := session.StartTransaction(); err != nil {
		return fmt.Errorf("%w (a replica set is needed): %w", repository.ErrNoTransactions, err)
	}
	_, werr := c.InsertOne(mongo.NewSessionContext(ctx, session), mark)
	aerr := session.AbortTransaction(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	n, err := c.CountDocuments(ctx, mark)
	if err != nil {
		return err
	}
	if n > 0 {
		_, err := c.DeleteOne(ctx, mark)
		return errors.Join(fmt.Errorf("%w: a write survived its rollback", repository.ErrNoTransactions), err)
	}
	if err := errors.Join(werr, aerr); err != nil {
		return fmt.Errorf("%w (a replica set is needed): %w", repository.ErrNoTransactions, err)
	}
	return nil
}

type (
	txKey struct{ client *mongo.Client }
	tx    struct{ doomed bool }
)

// InTx runs fn in a transaction: the one that ctx carries, or else a new one, which it commits when fn returns nil. It
// reads a snapshot and is written to the majority. fn runs again when the transaction lost against another, for up to
// two minutes; its effects must stay inside the database. It must not use ctx concurrently: a session is no pool.
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
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		own := &tx{}
		if err := fn(context.WithValue(ctx, txKey{t.client}, own)); err != nil {
			return nil, err
		}
		if own.doomed {
			return nil, ErrDoomed
		}
		return nil, ctx.Err()
	}, options.Transaction().SetReadConcern(readconcern.Snapshot()).SetWriteConcern(writeconcern.Majority()))
	return err
}
