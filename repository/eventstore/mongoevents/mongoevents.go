package mongoevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/internal/mongoerror"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrTransaction says that an append was tried in the context of a transaction.
	ErrTransaction = errors.New("mongoevents: an append joins no transaction")
	// ErrGap says that documents are missing: events were removed, and a reader would pass over them.
	ErrGap = errors.New("mongoevents: events are missing")
)

// maxAppend bounds the data of an append, below the server's limit for a document.
const maxAppend = 15 << 20

// Config tunes a Store. The zero Config is useful.
type Config struct {
	// Prefix begins the collections' names: events, snapshots, checkpoints. Empty means sillar_.
	Prefix string
	// OnAppend is called before the write of every append, with a collector of effects in ctx (driver.Collect):
	// what it collects is stored with the events or not at all. Its error undoes the append. It runs again, with other
	// positions, when another append was faster.
	OnAppend func(ctx context.Context, events []eventstore.Recorded) error
	// Poll is how often Wait looks for what other processes append. 0 means 200 ms.
	Poll time.Duration
	// Propagator writes correlation id and trace into the metadata. Nil means both.
	Propagator propagation.TextMapPropagator
}

// Store is an eventstore.Store. It is safe for concurrent use.
type Store struct {
	cfg                            Config
	events, snapshots, checkpoints *mongo.Collection

	turn chan struct{} // held by the append that writes
	end  int64         // the last position, or unknown; belongs to who holds turn

	mu      sync.Mutex
	changed chan struct{}
}

const unknown = -1

var _ eventstore.Store = (*Store)(nil)

var validPrefix = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// Indexes of the events.
const (
	streamIndex = "stream_first"
	idIndex     = "event_id"
)

// New returns a store in db, and makes the indexes it needs.
func New(ctx context.Context, db *mongo.Database, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("mongoevents: New needs a database")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "sillar_"
	}
	if !validPrefix.MatchString(cfg.Prefix) {
		return nil, fmt.Errorf("mongoevents: prefix %q does not match %s", cfg.Prefix, validPrefix)
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 200 * time.Millisecond
	}
	safe := options.Collection().SetWriteConcern(writeconcern.Majority()).
		SetReadConcern(readconcern.Majority()).SetReadPreference(readpref.Primary())
	s := &Store{cfg: cfg, events: db.Collection(cfg.Prefix+"events", safe),
		snapshots:   db.Collection(cfg.Prefix+"snapshots", safe),
		checkpoints: db.Collection(cfg.Prefix+"checkpoints", safe), turn: make(chan struct{}, 1), end: unknown,
		changed: make(chan struct{})}
	_, err := s.events.Indexes().CreateMany(ctx, []mongo.IndexModel{
		{Keys: bson.D{{Key: "stream", Value: 1}, {Key: "first", Value: 1}},
			Options: options.Index().SetName(streamIndex).SetUnique(true)},
		{Keys: bson.D{{Key: "events.id", Value: 1}}, Options: options.Index().SetName(idIndex).SetUnique(true)},
	})
	if err != nil {
		return nil, fmt.Errorf("mongoevents: make indexes: %w", err)
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

// batch is an append as it is stored. Data and metadata are text: numbers keep their digits, and names may hold what
// field names must not. Times are microseconds since 1970, UTC: a date holds milliseconds only.
type batch struct {
	Position int64           `bson:"_id"` // of the first event
	Stream   string          `bson:"stream"`
	First    int64           `bson:"first"` // version of the first event
	Count    int64           `bson:"count"`
	Time     int64           `bson:"time"`
	Events   []event         `bson:"events"`
	Effects  []driver.Effect `bson:"_effects,omitempty"`
	// Erased says that the events were deleted with their stream: their ids and number stay, so that positions and the
	// index of ids have no gap. Closed is the append that says so, after which there is none.
	Erased bool `bson:"erased,omitempty"`
	Closed bool `bson:"closed,omitempty"`
}

type event struct {
	ID       string `bson:"id"`
	Type     string `bson:"type"`
	Schema   int    `bson:"schema"`
	Data     string `bson:"data"`
	Metadata string `bson:"metadata"`
}

// recorded returns the events of a batch but for the first few.
func (b batch) recorded(skip int64) ([]eventstore.Recorded, error) {
	if b.Erased {
		return nil, nil
	}
	out := make([]eventstore.Recorded, 0, len(b.Events)-int(skip))
	at := time.UnixMicro(b.Time).UTC()
	for i, e := range b.Events[skip:] {
		n := skip + int64(i)
		r := eventstore.Recorded{Event: eventstore.Event{ID: e.ID, Type: e.Type, Schema: e.Schema,
			Data: json.RawMessage(e.Data)},
			Stream: b.Stream, Version: b.First + n, Position: b.Position + n, Time: at}
		if err := json.Unmarshal([]byte(e.Metadata), &r.Metadata); err != nil {
			return nil, fmt.Errorf("decode the metadata of %s: %w", e.ID, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Append implements eventstore.Store. It is one round trip for a new stream, and two for one that exists.
func (s *Store) Append(ctx context.Context, stream string, expected int64,
	events ...eventstore.Event) ([]eventstore.Recorded, error) {
	if session := mongo.SessionFromContext(ctx); session != nil && session.TransactionRunning() {
		return nil, fmt.Errorf("%w: %s", ErrTransaction, stream)
	}
	given := events
	events, err := eventstore.Prepare(ctx, s.cfg.Propagator, stream, expected, events, id.New)
	if err != nil {
		return nil, err
	}
	size := 0
	for _, e := range events {
		size += len(e.Data)
	}
	if size > maxAppend {
		return nil, fmt.Errorf("%w: %d bytes for stream %s, at most %d fit", eventstore.ErrAppend, size, stream, maxAppend)
	}
	out, err := s.inTurn(ctx, stream, expected, events)
	if err != nil {
		out, err = eventstore.Repeated(ctx, s, stream, expected, given, events, err)
	}
	if err != nil {
		return nil, fmt.Errorf("mongoevents: append to %s: %w", stream, err)
	}
	s.wake()
	return out, nil
}

// inTurn appends while no other append of this process does: they would only overtake each other.
func (s *Store) inTurn(ctx context.Context, stream string, expected int64,
	events []eventstore.Event) ([]eventstore.Recorded, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	pause := backoff.Exponential(time.Millisecond, 20*time.Millisecond)
	for n := 1; ; n++ {
		out, err := s.insert(ctx, stream, expected, events)
		if !errors.Is(err, errOvertaken) {
			return out, err
		}
		if err := backoff.Sleep(ctx, pause.Delay(n)); err != nil {
			return nil, err
		}
	}
}

// errOvertaken says that another process has taken the position, or the version where any would do.
var errOvertaken = errors.New("another append was faster")

func (s *Store) insert(ctx context.Context, stream string, expected int64,
	events []eventstore.Event) ([]eventstore.Recorded, error) {
	version := expected
	if expected != eventstore.NoStream { // a stream that exists is found by the index
		head, err := s.version(ctx, stream)
		if err != nil {
			return nil, err
		}
		if expected != eventstore.AnyVersion && head != expected {
			return nil, &repository.ConflictError{ID: stream, Expected: expected, Actual: head}
		}
		version = head
	}
	if s.end == unknown {
		end, err := s.last(ctx)
		if err != nil {
			return nil, err
		}
		s.end = end
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	b := batch{Position: s.end + 1, Stream: stream, First: version + 1, Count: int64(len(events)), Time: now.UnixMicro()}
	out := make([]eventstore.Recorded, len(events))
	for i, e := range events {
		meta, err := json.Marshal(e.Metadata)
		if err != nil {
			return nil, fmt.Errorf("encode the metadata: %w", err)
		}
		b.Events = append(b.Events, event{e.ID, e.Type, e.Schema, string(e.Data), string(meta)})
		out[i] = eventstore.Recorded{Event: e, Stream: stream, Version: b.First + int64(i), Position: b.Position + int64(i),
			Time: now}
	}
	b.Closed = events[0].Type == eventstore.Deleted
	if s.cfg.OnAppend != nil && !b.Closed {
		collecting, effects := driver.WithEffects(ctx, s.events.Name())
		if err := s.cfg.OnAppend(collecting, out); err != nil {
			return nil, err
		}
		b.Effects = effects.Collected()
	}
	if _, err := s.events.InsertOne(ctx, b); err != nil {
		s.end = unknown // also when it may have been stored after all
		if mongo.IsDuplicateKeyError(err) {
			return nil, s.taken(ctx, stream, expected, err)
		}
		return nil, err
	}
	s.end += b.Count
	return out, nil
}

// taken says what an append that met another one has come to.
func (s *Store) taken(ctx context.Context, stream string, expected int64, err error) error {
	if mongoerror.Index(err) == idIndex {
		return &repository.UniqueError{Constraint: idIndex, Fields: []string{"id"}, Err: err}
	}
	if expected == eventstore.AnyVersion {
		return errOvertaken
	}
	head, err := s.version(ctx, stream)
	if err != nil {
		return err
	}
	if head != expected {
		return &repository.ConflictError{ID: stream, Expected: expected, Actual: head}
	}
	return errOvertaken
}

// version returns the version of a stream.
func (s *Store) version(ctx context.Context, stream string) (int64, error) {
	var b batch
	err := s.events.FindOne(ctx, bson.D{{Key: "stream", Value: stream}},
		options.FindOne().SetSort(bson.D{{Key: "first", Value: -1}}).
			SetProjection(bson.D{{Key: "first", Value: 1}, {Key: "count", Value: 1}, {Key: "closed", Value: 1}})).Decode(&b)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return 0, nil
	}
	if b.Closed {
		return 0, fmt.Errorf("%w: %s", eventstore.ErrDeleted, stream)
	}
	return b.First + b.Count - 1, err
}

// last returns the last position.
func (s *Store) last(ctx context.Context) (int64, error) {
	var b batch
	err := s.events.FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "_id",
		Value: -1}}).SetProjection(bson.D{{Key: "count", Value: 1}})).Decode(&b)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return 0, nil
	}
	return b.Position + b.Count - 1, err
}
