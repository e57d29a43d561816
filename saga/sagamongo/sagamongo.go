// Package sagamongo keeps sagas in MongoDB, or a server that speaks its protocol: one document a saga. Every write is
// one atomic compare-and-set, so no replica set is needed.
//
//	store, err := sagamongo.New(ctx, db, sagamongo.Config{})
//	o, err := saga.New(store, saga.Config{}, PlaceOrder)
//
// It joins no transaction: a saga begins when Start returns, also in the context of one. Writes are acknowledged by the
// majority where there is a replica set, and reads are the primary's, whatever the client's defaults are.
//
// Callers that wait for sagas of other processes are notified of their ends by a change stream where the server has
// them (a replica set) and the client may open one (the privilege changeStream, which the role read includes).
// Elsewhere, FerretDB included, and while the stream is broken, they learn of ends by polling, every 250 ms, in one
// query for all of them.
package sagamongo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"

	"github.com/sillar-go/sillar/saga"
)

// Config tunes a Store.
type Config struct {
	// Prefix begins the collections' names. Empty means sillar_.
	Prefix string
}

// Store is a saga.Store. It is safe for concurrent use.
type Store struct {
	db           *mongo.Database
	sagas, nodes *mongo.Collection
	ahead        atomic.Int64 // how far the server's clock is ahead of this node's, in ns; now sets it
	asked        atomic.Bool  // ahead is known
}

var (
	_ saga.Store    = (*Store)(nil)
	_ saga.Listener = (*Store)(nil)
)

// New returns a store and creates the indexes that it needs.
func New(ctx context.Context, db *mongo.Database, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sagamongo: New needs a database")
	}
	prefix := cmp.Or(cfg.Prefix, "sillar_")
	safe := options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary())
	s := &Store{db: db, sagas: db.Collection(prefix+"sagas", safe), nodes: db.Collection(prefix+"orchestrators", safe)}
	_, err := s.sagas.Indexes().CreateMany(ctx, indexes())
	if err == nil { // by which Leave finds leases that ended long ago
		_, err = s.nodes.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "expires_at", Value: 1}}})
	}
	if err != nil {
		return nil, fmt.Errorf("sagamongo: create the indexes: %w", err)
	}
	return s, nil
}

// Must returns v or panics with err.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// alone returns a context that carries no session, and so no transaction.
func alone(ctx context.Context) context.Context { return mongo.NewSessionContext(ctx, nil) }

// now is the clock of the server, which decides about leases.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	var hello struct {
		LocalTime time.Time `bson:"localTime"`
	}
	if err := s.db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return time.Time{}, fmt.Errorf("sagamongo: ask for the time: %w", err)
	}
	if hello.LocalTime.IsZero() {
		return time.Time{}, errors.New("sagamongo: the server does not report its time")
	}
	s.ahead.Store(int64(time.Until(hello.LocalTime)))
	s.asked.Store(true)
	return hello.LocalTime, nil
}

// serverTime returns when a saga is due by the server's clock, as far as the last heartbeat or claim, or else a call
// for this, has shown it: a difference of the two clocks delays nothing. For a saga that has ended it is the time of
// its end.
func (s *Store) serverTime(ctx context.Context, r saga.Record) (time.Time, error) {
	at := r.WakeAt
	if r.Status.Ended() {
		at = time.Now()
	}
	if !s.asked.Load() {
		if _, err := s.now(ctx); err != nil {
			return at, err
		}
	}
	return at.Add(time.Duration(s.ahead.Load())), nil
}

// Insert implements saga.Store.
func (s *Store) Insert(ctx context.Context, r saga.Record) (saga.Record, bool, error) {
	ctx = alone(ctx)
	due, err := s.serverTime(ctx, r)
	if err != nil {
		return r, false, err
	}
	r.Revision, r.WakeAt = 1, due
	d, err := encode(r)
	if err != nil {
		return r, false, err
	}
	d.CreatedAt = time.Now().UnixMicro()
	d.UpdatedAt = d.CreatedAt
	d.Signals = []signal{}
	for name, payload := range r.Signals {
		d.Signals = append(d.Signals, signal{name, payload})
	}
	for name, value := range r.Attributes() {
		d.Attributes = append(d.Attributes, attribute(name, value))
	}
	if _, err = s.sagas.InsertOne(ctx, d); mongo.IsDuplicateKeyError(err) {
		stored, err := s.Get(ctx, r.ID)
		return stored, false, err
	}
	if err != nil {
		return r, false, fmt.Errorf("sagamongo: insert %s: %w", r.ID, unstorable(err))
	}
	return r, true, nil
}

// InTx implements saga.Store: no transaction is joined.
func (s *Store) InTx(context.Context) bool { return false }

// AfterCommit implements saga.Store.
func (s *Store) AfterCommit(_ context.Context, fn func()) { fn() }

// Get implements saga.Store.
func (s *Store) Get(ctx context.Context, id string) (saga.Record, error) {
	ctx = alone(ctx)
	raw, err := s.sagas.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return saga.Record{}, saga.ErrNotFound
	}
	if err != nil {
		return saga.Record{}, fmt.Errorf("sagamongo: get %s: %w", id, err)
	}
	row := decode(raw)
	if row.err != nil {
		return saga.Record{}, fmt.Errorf("sagamongo: get %s: %w", id, row.err)
	}
	return row.record, nil
}

// Save implements saga.Store.
func (s *Store) Save(ctx context.Context, r saga.Record) error {
	ctx = alone(ctx)
	due, err := s.serverTime(ctx, r)
	if err != nil {
		return err
	}
	r.WakeAt = due
	d, err := encode(r)
	if err != nil {
		return err
	}
	res, err := s.sagas.UpdateOne(
		ctx,
		bson.D{
			{Key: "_id", Value: r.ID},
			{Key: "fence", Value: r.Fence},
			{Key: "revision", Value: r.Revision},
			{Key: "signal_seq", Value: r.SignalSeq},
		},
		bson.D{
			{Key: "$set", Value: bson.D{
				{Key: "version", Value: d.Version},
				{Key: "shape", Value: d.Shape},
				{Key: "status", Value: d.Status},
				{Key: "cursor", Value: d.Cursor},
				{Key: "state", Value: d.State},
				{Key: "steps", Value: d.Steps},
				{Key: "failed_step", Value: d.FailedStep},
				{Key: "cause", Value: d.Cause},
				{Key: "audit", Value: d.Audit},
				{Key: "owner", Value: d.Owner},
				{Key: "wake_at", Value: d.WakeAt},
				{Key: "updated_at", Value: time.Now().UnixMicro()},
			}},
			{Key: "$inc", Value: bson.D{{Key: "revision", Value: 1}}},
		},
	)
	if err != nil {
		return fmt.Errorf("sagamongo: save %s: %w", r.ID, unstorable(err))
	}
	if res.MatchedCount == 1 {
		return nil
	}
	stored, err := s.Get(ctx, r.ID)
	switch {
	case err != nil:
		return err
	case stored.Fence != r.Fence || stored.Revision != r.Revision:
		return saga.ErrFenced
	}
	return saga.ErrSignalled
}

// unstorable marks an error by which the server, or the driver, refuses a document of more than 16 MiB.
func unstorable(err error) error {
	var e mongo.ServerError
	large := errors.Is(err, driver.ErrDocumentTooLarge)
	if errors.As(err, &e) { // FerretDB has no code of its own for it
		large = large || e.HasErrorCode(10334) || e.HasErrorCode(17419) || e.HasErrorMessage("MaxDocumentSize")
	}
	if large {
		return fmt.Errorf("%w: %w", saga.ErrUnstorable, err)
	}
	return err
}

// Signal implements saga.Store. It looks again as long as others change the saga between its look and its write.
func (s *Store) Signal(
	ctx context.Context,
	id, name string,
	payload func(saga.Record) ([]byte, error),
) (bool, error) {
	ctx = alone(ctx)
	for {
		r, err := s.Get(ctx, id)
		if err != nil {
			return false, err
		}
		if _, again := r.Signals[name]; again {
			return false, nil
		}
		if r.Status == saga.Completed || r.Status == saga.Compensated {
			return false, saga.ErrFinished
		}
		raw, err := payload(r)
		if err != nil {
			return false, err
		}
		now, err := s.now(ctx)
		if err != nil {
			return false, err
		}
		res, err := s.sagas.UpdateOne(
			ctx,
			bson.D{
				{Key: "_id", Value: id},
				{Key: "fence", Value: r.Fence},
				{Key: "revision", Value: r.Revision},
				{Key: "signal_seq", Value: r.SignalSeq},
			},
			bson.D{
				{Key: "$push", Value: bson.D{{Key: "signals", Value: signal{name, raw}}}},
				{Key: "$inc", Value: bson.D{{Key: "signal_seq", Value: 1}}},
				{Key: "$set", Value: bson.D{{Key: "wake_at", Value: now.UnixMicro()}}},
			},
		)
		if err != nil {
			return false, fmt.Errorf("sagamongo: signal %s of %s: %w", name, id, unstorable(err))
		}
		if res.MatchedCount == 1 {
			return true, nil
		}
	}
}

// Heartbeat implements saga.Store.
func (s *Store) Heartbeat(ctx context.Context, node string, lease time.Duration) error {
	ctx = alone(ctx)
	now, err := s.now(ctx)
	if err != nil {
		return err
	}
	_, err = s.nodes.UpdateOne(
		ctx,
		bson.D{{Key: "_id", Value: node}},
		bson.D{
			{Key: "$set", Value: bson.D{{Key: "expires_at", Value: now.Add(lease).UnixMicro()}}},
		},
		options.UpdateOne().SetUpsert(true),
	)
	if err != nil {
		return fmt.Errorf("sagamongo: heartbeat: %w", err)
	}
	return nil
}

// Leave implements saga.Store. It clears away leases that ended long ago, too.
func (s *Store) Leave(ctx context.Context, node string) error {
	ctx = alone(ctx)
	dayAgo := time.Now().Add(time.Duration(s.ahead.Load()) - 24*time.Hour).UnixMicro()
	_, err := s.nodes.DeleteOne(ctx, bson.D{{Key: "_id", Value: node}})
	if err == nil {
		old := bson.D{{Key: "expires_at", Value: bson.D{{Key: "$lt", Value: dayAgo}}}}
		_, err = s.nodes.DeleteMany(ctx, old)
	}
	if err != nil {
		return fmt.Errorf("sagamongo: leave: %w", err)
	}
	return nil
}

// Delete implements saga.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	ctx = alone(ctx)
	res, err := s.sagas.DeleteOne(ctx, bson.D{{Key: "_id", Value: id},
		{Key: "status", Value: bson.D{{Key: "$in", Value: []saga.Status{saga.Completed, saga.Compensated, saga.Stuck}}}}})
	if err != nil {
		return fmt.Errorf("sagamongo: delete %s: %w", id, err)
	}
	if res.DeletedCount == 1 {
		return nil
	}
	if _, err := s.Get(ctx, id); errors.Is(err, saga.ErrNotFound) {
		return err
	}
	return saga.ErrUnfinished
}

// Prune implements saga.Store. wake_at is when a finished saga ended.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (int, error) {
	ctx = alone(ctx)
	var ids []string
	for _, status := range []saga.Status{saga.Completed, saga.Compensated} {
		cur, err := s.sagas.Find(ctx,
			bson.D{{Key: "status", Value: status}, {Key: "wake_at", Value: bson.D{{Key: "$lt", Value: before.UnixMicro()}}}},
			options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}).SetSort(bson.D{{Key: "wake_at", Value: 1}}).
				SetLimit(int64(limit-len(ids))))
		var found []struct {
			ID string `bson:"_id"`
		}
		if err == nil {
			err = cur.All(ctx, &found)
		}
		if err != nil {
			return 0, fmt.Errorf("sagamongo: prune: %w", err)
		}
		for _, d := range found {
			ids = append(ids, d.ID)
		}
		if len(ids) == limit {
			break
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	res, err := s.sagas.DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}},
		{Key: "status", Value: bson.D{{Key: "$in", Value: []saga.Status{saga.Completed, saga.Compensated}}}}})
	if err != nil {
		return 0, fmt.Errorf("sagamongo: prune: %w", err)
	}
	return int(res.DeletedCount), nil
}
