// Package sagamongo keeps sagas in MongoDB, or a server that speaks its protocol: one document a saga. Every write is one
// atomic compare-and-set, so no replica set is needed.
//
//	store, err := sagamongo.New(ctx, db, sagamongo.Config{})
//	o, err := saga.New(store, saga.Config{}, PlaceOrder)
//
// It joins no transaction: a saga begins when Start returns, also in the context of one. Writes are acknowledged by the
// majority where there is a replica set, and reads are the primary's, whatever the client's defaults are.
package sagamongo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

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
}

var _ saga.Store = (*Store)(nil)

// New returns a store, and makes the index it needs.
func New(ctx context.Context, db *mongo.Database, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sagamongo: New needs a database")
	}
	prefix := cmp.Or(cfg.Prefix, "sillar_")
	safe := options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary())
	s := &Store{db, db.Collection(prefix+"sagas", safe), db.Collection(prefix+"orchestrators", safe)}
	_, err := s.sagas.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "status", Value: 1}, {Key: "wake_at", Value: 1}}})
	if err != nil {
		return nil, fmt.Errorf("sagamongo: make the index: %w", err)
	}
	return s, nil
}

// Must returns s or panics with err.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// document is a saga as it is stored. Times are microseconds since 1970, UTC: a date holds milliseconds only.
type document struct {
	ID         string            `bson:"_id"`
	Name       string            `bson:"name"`
	Version    int               `bson:"version"`
	Shape      string            `bson:"shape"`
	Status     saga.Status       `bson:"status"`
	Cursor     int               `bson:"cursor"`
	State      string            `bson:"state"`
	Steps      string            `bson:"steps"`
	FailedStep string            `bson:"failed_step"`
	Cause      string            `bson:"cause"`
	Headers    map[string]string `bson:"headers"`
	Audit      string            `bson:"audit"`
	Revision   int64             `bson:"revision"`
	Fence      int64             `bson:"fence"`
	Owner      string            `bson:"owner"`
	WakeAt     int64             `bson:"wake_at"`
	Signals    []signal          `bson:"signals"`
	SignalSeq  int64             `bson:"signal_seq"`
	CreatedAt  int64             `bson:"created_at"`
	UpdatedAt  int64             `bson:"updated_at"`
}

// signal is not a field named like the signal: names may hold what field names must not.
type signal struct {
	Name    string `bson:"name"`
	Payload []byte `bson:"payload"`
}

func encode(r saga.Record) (document, error) {
	steps, err1 := json.Marshal(r.Steps)
	audit, err2 := json.Marshal(r.Audit)
	if err := errors.Join(err1, err2); err != nil {
		return document{}, fmt.Errorf("sagamongo: encode %s: %w", r.ID, err)
	}
	return document{ID: r.ID, Name: r.Name, Version: r.Version, Shape: r.Shape, Status: r.Status, Cursor: r.Cursor, State: string(r.State),
		Steps: string(steps), FailedStep: r.FailedStep, Cause: r.Cause, Headers: r.Headers, Audit: string(audit), Revision: r.Revision, Fence: r.Fence,
		Owner: r.Owner, WakeAt: r.WakeAt.UnixMicro(), SignalSeq: r.SignalSeq}, nil
}

func decode(d document) (saga.Record, error) {
	r := saga.Record{ID: d.ID, Name: d.Name, Version: d.Version, Shape: d.Shape, Status: d.Status, Cursor: d.Cursor, State: []byte(d.State),
		FailedStep: d.FailedStep, Cause: d.Cause, Headers: d.Headers, Revision: d.Revision, Fence: d.Fence, Owner: d.Owner,
		WakeAt: time.UnixMicro(d.WakeAt).UTC(), SignalSeq: d.SignalSeq, CreatedAt: time.UnixMicro(d.CreatedAt).UTC(), UpdatedAt: time.UnixMicro(d.UpdatedAt).UTC()}
	for _, s := range d.Signals {
		if r.Signals == nil {
			r.Signals = map[string][]byte{}
		}
		r.Signals[s.Name] = s.Payload
	}
	if err := errors.Join(json.Unmarshal([]byte(d.Steps), &r.Steps), json.Unmarshal([]byte(d.Audit), &r.Audit)); err != nil {
		return r, fmt.Errorf("sagamongo: decode %s: %w", d.ID, err)
	}
	return r, nil
}

// alone returns a context that carries no session, and so no transaction.
func alone(ctx context.Context) context.Context { return mongo.NewSessionContext(ctx, nil) }

// now is the server's clock, by which leases are judged.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	var hello struct {
		LocalTime time.Time `bson:"localTime"`
	}
	if err := s.db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return time.Time{}, fmt.Errorf("sagamongo: ask for the time: %w", err)
	}
	if hello.LocalTime.IsZero() {
		return time.Time{}, errors.New("sagamongo: the server does not tell its time")
	}
	return hello.LocalTime, nil
}

// Insert implements saga.Store.
func (s *Store) Insert(ctx context.Context, r saga.Record) (saga.Record, bool, error) {
	ctx = alone(ctx)
	r.Revision = 1
	d, err := encode(r)
	if err != nil {
		return r, false, err
	}
	d.CreatedAt = time.Now().UnixMicro()
	d.UpdatedAt = d.CreatedAt
	d.Signals = []signal{}
	if _, err = s.sagas.InsertOne(ctx, d); mongo.IsDuplicateKeyError(err) {
		stored, err := s.Get(ctx, r.ID)
		return stored, false, err
	}
	if err != nil {
		return r, false, fmt.Errorf("sagamongo: insert %s: %w", r.ID, err)
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
	var d document
	err := s.sagas.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Decode(&d)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return saga.Record{}, saga.ErrNotFound
	}
	if err != nil {
		return saga.Record{}, fmt.Errorf("sagamongo: get %s: %w", id, err)
	}
	return decode(d)
}

func (s *Store) find(ctx context.Context, filter bson.D, sort bson.D, limit int) (out []saga.Record, err error) {
	cur, err := s.sagas.Find(ctx, filter, options.Find().SetSort(sort).SetLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	var docs []document
	if err := cur.All(ctx, &docs); err != nil {
		return nil, err
	}
	for _, d := range docs {
		r, err := decode(d)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

var unfinished = bson.E{Key: "status", Value: bson.D{{Key: "$in", Value: bson.A{saga.Running, saga.Compensating}}}}

// alive returns the nodes that have a lease.
func (s *Store) alive(ctx context.Context, now time.Time) (map[string]bool, error) {
	cur, err := s.nodes.Find(ctx, bson.D{{Key: "expires_at", Value: bson.D{{Key: "$gt", Value: now.UnixMicro()}}}})
	var leases []struct {
		Node string `bson:"_id"`
	}
	if err == nil {
		err = cur.All(ctx, &leases)
	}
	if err != nil {
		return nil, fmt.Errorf("sagamongo: look at leases: %w", err)
	}
	nodes := map[string]bool{}
	for _, l := range leases {
		nodes[l.Node] = true
	}
	return nodes, nil
}

// Claim implements saga.Store. Each saga is taken by a compare-and-set of its own: of several nodes one gets it.
func (s *Store) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	ctx = alone(ctx)
	if len(kinds) == 0 || limit <= 0 {
		return nil, nil
	}
	now, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := s.alive(ctx, now)
	if err != nil {
		return nil, err
	}
	alive, which := bson.A{""}, bson.A{}
	for node := range leases {
		alive = append(alive, node)
	}
	for _, k := range kinds {
		which = append(which, bson.D{{Key: "name", Value: k.Name}, {Key: "version", Value: k.Version}})
	}
	free := bson.A{
		bson.D{{Key: "owner", Value: ""}, {Key: "wake_at", Value: bson.D{{Key: "$lte", Value: now.UnixMicro()}}}},
		bson.D{{Key: "owner", Value: bson.D{{Key: "$nin", Value: alive}}}},
	}
	due, err := s.find(ctx, bson.D{unfinished, {Key: "$and", Value: bson.A{bson.D{{Key: "$or", Value: which}}, bson.D{{Key: "$or", Value: free}}}}},
		bson.D{{Key: "wake_at", Value: 1}, {Key: "_id", Value: 1}}, limit)
	if err != nil {
		return nil, fmt.Errorf("sagamongo: claim: %w", err)
	}
	if slices.ContainsFunc(due, func(r saga.Record) bool { return r.Owner != "" }) {
		// A node that has come since the first look, and has claimed, is alive: look again, after what it has written.
		if leases, err = s.alive(ctx, now); err != nil {
			return nil, err
		}
	}
	var out []saga.Claimed
	for _, r := range due {
		if leases[r.Owner] {
			continue
		}
		res, err := s.sagas.UpdateOne(ctx,
			bson.D{{Key: "_id", Value: r.ID}, {Key: "fence", Value: r.Fence}, {Key: "revision", Value: r.Revision}, {Key: "owner", Value: r.Owner}},
			bson.D{{Key: "$set", Value: bson.D{{Key: "owner", Value: node}}}, {Key: "$inc", Value: bson.D{{Key: "fence", Value: 1}, {Key: "revision", Value: 1}}}})
		if err != nil {
			return out, fmt.Errorf("sagamongo: claim %s: %w", r.ID, err)
		}
		if res.MatchedCount == 1 {
			taken := r.Owner != ""
			r.Owner, r.Fence, r.Revision = node, r.Fence+1, r.Revision+1
			out = append(out, saga.Claimed{Record: r, TakenOver: taken})
		}
	}
	return out, nil
}

// Save implements saga.Store.
func (s *Store) Save(ctx context.Context, r saga.Record) error {
	ctx = alone(ctx)
	d, err := encode(r)
	if err != nil {
		return err
	}
	res, err := s.sagas.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: r.ID}, {Key: "fence", Value: r.Fence}, {Key: "revision", Value: r.Revision}, {Key: "signal_seq", Value: r.SignalSeq}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "version", Value: d.Version}, {Key: "shape", Value: d.Shape}, {Key: "status", Value: d.Status},
			{Key: "cursor", Value: d.Cursor}, {Key: "state", Value: d.State}, {Key: "steps", Value: d.Steps}, {Key: "failed_step", Value: d.FailedStep},
			{Key: "cause", Value: d.Cause}, {Key: "audit", Value: d.Audit}, {Key: "owner", Value: d.Owner}, {Key: "wake_at", Value: d.WakeAt},
			{Key: "updated_at", Value: time.Now().UnixMicro()}}}, {Key: "$inc", Value: bson.D{{Key: "revision", Value: 1}}}})
	if err != nil {
		return fmt.Errorf("sagamongo: save %s: %w", r.ID, err)
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

// Signal implements saga.Store. It looks again as long as others change the saga between its look and its write.
func (s *Store) Signal(ctx context.Context, id, name string, payload []byte, check func(saga.Record) error) (bool, error) {
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
		if err := check(r); err != nil {
			return false, err
		}
		now, err := s.now(ctx)
		if err != nil {
			return false, err
		}
		res, err := s.sagas.UpdateOne(ctx,
			bson.D{{Key: "_id", Value: id}, {Key: "fence", Value: r.Fence}, {Key: "revision", Value: r.Revision}, {Key: "signal_seq", Value: r.SignalSeq}},
			bson.D{{Key: "$push", Value: bson.D{{Key: "signals", Value: signal{name, payload}}}}, {Key: "$inc", Value: bson.D{{Key: "signal_seq", Value: 1}}},
				{Key: "$set", Value: bson.D{{Key: "wake_at", Value: now.UnixMicro()}}}})
		if err != nil {
			return false, fmt.Errorf("sagamongo: signal %s of %s: %w", name, id, err)
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
	_, err = s.nodes.UpdateOne(ctx, bson.D{{Key: "_id", Value: node}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "expires_at", Value: now.Add(lease).UnixMicro()}}}}, options.UpdateOne().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("sagamongo: heartbeat: %w", err)
	}
	return nil
}

// Leave implements saga.Store. It clears away leases that ended long ago, too.
func (s *Store) Leave(ctx context.Context, node string) error {
	ctx = alone(ctx)
	dayAgo := time.Now().Add(-24 * time.Hour).UnixMicro()
	_, err := s.nodes.DeleteMany(ctx, bson.D{{Key: "$or", Value: bson.A{bson.D{{Key: "_id", Value: node}},
		bson.D{{Key: "expires_at", Value: bson.D{{Key: "$lt", Value: dayAgo}}}}}}})
	if err != nil {
		return fmt.Errorf("sagamongo: leave: %w", err)
	}
	return nil
}

// List implements saga.Store.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Record, error) {
	ctx = alone(ctx)
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$gt", Value: f.After}}}}
	if f.Name != "" {
		filter = append(filter, bson.E{Key: "name", Value: f.Name})
	}
	if len(f.Statuses) > 0 {
		filter = append(filter, bson.E{Key: "status", Value: bson.D{{Key: "$in", Value: f.Statuses}}})
	}
	limit := f.Limit
	if limit <= 0 { // MongoDB takes a negative one for its amount, in one batch
		limit = 100
	}
	out, err := s.find(ctx, filter, bson.D{{Key: "_id", Value: 1}}, limit)
	if err != nil {
		return nil, fmt.Errorf("sagamongo: list: %w", err)
	}
	return out, nil
}

// Shapes implements saga.Store.
func (s *Store) Shapes(ctx context.Context, k saga.Kind) (shapes []string, err error) {
	ctx = alone(ctx)
	err = s.sagas.Distinct(ctx, "shape", bson.D{unfinished, {Key: "name", Value: k.Name}, {Key: "version", Value: k.Version}}).Decode(&shapes)
	if err != nil {
		return nil, fmt.Errorf("sagamongo: shapes: %w", err)
	}
	return shapes, nil
}
