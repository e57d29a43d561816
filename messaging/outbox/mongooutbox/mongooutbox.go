// Package mongooutbox is an outbox in MongoDB without transactions: an event lies inside the document whose change
// causes it, and is written by the same atomic write.
//
//	box, err := mongooutbox.New(db, mongooutbox.Config{Source: "users", Collections: []string{"users"}})
//	user, err = users.Update(ctx, id, func(ctx context.Context, u *User) error { // a mongorepo.Repo
//		u.Email = email
//		return box.Publish(ctx, "users.email_changed", EmailChanged{ID: u.ID})
//	})
//	relay, err := outbox.NewRelay(box, broker, outbox.RelayConfig{})
//
// # Guarantees
//
// Those of package outbox, with the document in place of the key: the events of one document are published one after
// the other where they have one key, and one that fails holds back its document's. A document that was deleted stays as
// a tombstone until its events are confirmed; the relay removes it then. Where there is a replica set an event is
// published when the majority has its write, whatever the client's defaults are.
//
// # What it does not do
//
// It does not order events of different documents, nor hold one back until a time (messaging.WithDeliverAt). Events are
// held, listed and retried by document: SkipHeld puts an event behind the others of its document, which may wait for it
// again. Leases go by the clocks of the relays' machines, which should not be further apart than a part of
// RelayConfig.Lease. Relays are woken by a change stream where the server has them (a replica set); elsewhere they
// poll.
package mongooutbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
	"github.com/sillar-go/sillar/messaging/outbox"
	repo "github.com/sillar-go/sillar/repository/driver"
)

// Kind is the kind of the effects that are events; others are left alone.
const Kind = "message"

// Fields of a document.
const (
	effects = "_effects" // mongorepo.EffectsField, without linking mongorepo
	deleted = "_deleted"
	relay   = "_relay" // who publishes: owner, until, claimed (entries not settled), held, attempts
)

// Attributes that an effect has no field for travel among its headers.
const (
	headerSource      = "cloudevents_source"
	headerContentType = "cloudevents_datacontenttype"
	headerTime        = "cloudevents_time"
)

// Config tunes an Outbox.
type Config struct {
	// Source names the service in events that do not name one. Required for publishing those.
	Source string
	// Collections lists the collections whose documents hold events. Required.
	Collections []string
	// Propagator writes correlation id and trace of the write's context into the headers. Default both.
	Propagator propagation.TextMapPropagator
	// Logger logs (info) when a relay starts on a server without change streams, and so polls, and when a change stream
	// cannot be opened again and again. Default slog.Default().
	Logger *slog.Logger
}

// Outbox is a messaging.Publisher whose events are part of a document's write, and the store of a relay.
type Outbox struct {
	db  *mongo.Database
	cfg Config
}

// collection returns a collection as relays use it. The majority has a claim before it is returned, and so what it
// claims: else a failover could take back a write whose events have been published.
func (o *Outbox) collection(name string) *mongo.Collection {
	return o.db.Collection(name,
		options.Collection().SetWriteConcern(writeconcern.Majority()).SetReadPreference(readpref.Primary()))
}

var (
	_ messaging.Publisher = (*Outbox)(nil)
	_ outbox.Store        = (*Outbox)(nil)
)

// New makes an outbox over collections of a database.
func New(db *mongo.Database, cfg Config) (*Outbox, error) {
	if db == nil || len(cfg.Collections) == 0 {
		return nil, errors.New("mongooutbox: New needs a database and Config.Collections")
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	return &Outbox{db: db, cfg: cfg}, nil
}

// Must returns o or panics with err.
func Must(o *Outbox, err error) *Outbox {
	if err != nil {
		panic(err)
	}
	return o
}

// EnsureIndexes makes the index by which relays find documents with events, and new events beside held ones. Without it
// each look reads whole collections.
func (o *Outbox) EnsureIndexes(ctx context.Context) error {
	for _, name := range o.cfg.Collections {
		_, err := o.db.Collection(name).Indexes().CreateOne(ctx, mongo.IndexModel{
			Keys: bson.D{{Key: effects + ".kind", Value: 1}, {Key: relay + ".held", Value: 1},
				{Key: relay + ".until", Value: 1}},
			Options: options.Index().SetName("sillar_events").
				SetPartialFilterExpression(bson.D{{Key: effects + ".kind", Value: Kind}})})
		if err != nil {
			return fmt.Errorf("mongooutbox: make the index of %s: %w", name, err)
		}
	}
	return nil
}

// Publish adds an event to the write that ctx belongs to; outside one it returns repository.ErrNoEffects.
func (o *Outbox) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	e, err := messaging.NewEnvelope(topic, payload, opts...)
	if err == nil {
		e, err = driver.Fill(ctx, e, o.cfg.Source, o.cfg.Propagator)
	}
	if err != nil {
		return err
	}
	return collect(ctx, e)
}

// PublishBatch adds several.
func (o *Outbox) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	errs := make([]error, len(events))
	for i, e := range events {
		if e, errs[i] = driver.Fill(ctx, e, o.cfg.Source, o.cfg.Propagator); errs[i] == nil {
			errs[i] = collect(ctx, e)
		}
	}
	return driver.Batch(errs)
}

func collect(ctx context.Context, e messaging.Envelope) error {
	if time.Now().Before(e.DeliverAt) {
		return fmt.Errorf("%w: mongooutbox: delayed publishing", messaging.ErrUnsupported)
	}
	h := maps.Clone(e.Headers)
	h[headerSource], h[headerContentType], h[headerTime] = e.Source, e.ContentType, e.Time.Format(time.RFC3339Nano)
	err := repo.Collect(ctx, repo.Effect{ID: e.ID, Kind: Kind, Topic: e.Type, Key: e.Key, Headers: h,
		Body: e.Body, CreatedAt: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("mongooutbox: publish %s: %w", e.Type, err)
	}
	return nil
}

func envelope(f repo.Effect) messaging.Envelope {
	e := messaging.Envelope{ID: f.ID, Type: f.Topic, Key: f.Key, Source: f.Headers[headerSource],
		ContentType: f.Headers[headerContentType],
		Time:        f.CreatedAt, Headers: f.Headers, Body: f.Body}
	if t, err := time.Parse(time.RFC3339Nano, f.Headers[headerTime]); err == nil {
		e.Time = t
	}
	for _, name := range []string{headerSource, headerContentType, headerTime} {
		delete(e.Headers, name)
	}
	return e
}
