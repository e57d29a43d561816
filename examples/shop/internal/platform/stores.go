package platform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/messaging/outbox/sqloutbox"
	"github.com/sillar-go/sillar/repository/mongorepo/mongootel"
	"github.com/sillar-go/sillar/repository/sqldb"
	_ "github.com/sillar-go/sillar/repository/sqldb/sqlite" // embedded default
	"github.com/sillar-go/sillar/repository/sqlrepo"
)

// OpenSQL opens the service's database, and closes it at the end.
func (s *Service) OpenSQL(ctx context.Context) (*sqldb.DB, error) {
	cfg := s.Database
	cfg.TracerProvider = s.Tel.TracerProvider
	cfg.StatementTimeout = cmp.Or(cfg.StatementTimeout, 5*time.Second) // well below the timeout of requests
	db, err := sqldb.Open(ctx, s.DB, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	s.Health.Add("database", db.Ping)
	s.OnClose("database", func(context.Context) error { return db.Close() })
	return db, nil
}

// OnMongo says whether the service's database is MongoDB.
func (s *Service) OnMongo() bool { return strings.HasPrefix(s.DB, "mongodb") }

// OpenMongo opens the service's database, whose name is the DSN's path.
func (s *Service) OpenMongo(ctx context.Context) (*mongo.Database, error) {
	u, err := url.Parse(s.DB)
	name := ""
	if err == nil {
		name = strings.Trim(u.Path, "/")
	}
	if name == "" {
		return nil, fmt.Errorf("%s: the DSN of MongoDB must name a database: mongodb://host/name", s.Name)
	}
	c, err := mongo.Connect(options.Client().ApplyURI(s.DB).
		SetServerSelectionTimeout(5 * time.Second).SetMonitor(mongootel.Monitor(s.Tel.TracerProvider)))
	if err != nil {
		return nil, fmt.Errorf("%s: MongoDB at %s: %w", s.Name, u.Host, err)
	}
	if err := c.Ping(ctx, nil); err != nil {
		return nil, fmt.Errorf("%s: MongoDB at %s does not answer: %w", s.Name, u.Host, err)
	}
	s.Health.Add("database", func(ctx context.Context) error { return c.Ping(ctx, nil) })
	s.OnClose("database", c.Disconnect)
	return c.Database(name), nil
}

// Schema is something that makes its own tables.
type Schema interface {
	EnsureSchema(ctx context.Context) error
}

// Ensure makes the tables of several parts, and then those of a script.
func Ensure(ctx context.Context, db *sqldb.DB, script string, parts ...Schema) error {
	for _, p := range parts {
		if err := p.EnsureSchema(ctx); err != nil {
			return err
		}
	}
	if script == "" {
		return nil
	}
	return Tables(ctx, db, func(ctx context.Context) error { return db.Exec(ctx, script) })
}

// Repo makes the store of an entity, and its table where that does not exist. unique lists sets of columns whose
// values no two entities share.
func Repo[E any](ctx context.Context, db *sqldb.DB, table string, unique ...[]string) (*sqlrepo.Repo[E], error) {
	schema, err := sqlrepo.Schema[E](db.Dialect(), table, unique...)
	if err != nil {
		return nil, err
	}
	if err := Tables(ctx, db, func(ctx context.Context) error { return db.Exec(ctx, schema) }); err != nil {
		return nil, fmt.Errorf("make the table %s: %w", table, err)
	}
	return sqlrepo.New[E](db, sqlrepo.Config{Table: table})
}

// Total is how many there are of a status, and their worth.
type Total struct {
	Status string `json:"status"`
	Count  int64  `json:"count"`
	Cents  int64  `json:"cents"`
}

// Totals adds up a table by its column status, for operators. The names are the program's own.
func Totals(ctx context.Context, db *sqldb.DB, table, cents string) (out []Total, err error) {
	out = []Total{}
	rows, err := db.Querier(ctx).Query(ctx, "SELECT status, count(*), CAST(coalesce(sum("+cents+"), 0) AS BIGINT) FROM "+
		table+" GROUP BY status ORDER BY status")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var t Total
		if err := rows.Scan(&t.Status, &t.Count, &t.Cents); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

// Outbox makes the service's outbox in a SQL database, and relays what is in it.
func (s *Service) Outbox(ctx context.Context, db *sqldb.DB) (*sqloutbox.Outbox, error) {
	box, err := sqloutbox.New(db, sqloutbox.Config{Source: s.Name, Propagator: s.Tel.Propagator})
	if err != nil {
		return nil, err
	}
	if err := box.EnsureSchema(ctx); err != nil {
		return nil, err
	}
	return box, s.Relay(box)
}

// Relay publishes what an outbox stores, and registers the operations on the events that it holds.
func (s *Service) Relay(store outbox.Store) error {
	relay, err := outbox.NewRelay(store, s.Broker, outbox.RelayConfig{Name: s.Name, Logger: s.Log,
		MeterProvider: s.Tel.MeterProvider, DrainTimeout: 5 * time.Second,
		TracerProvider: s.Tel.TracerProvider, Propagator: s.Tel.Propagator,
		Unroutable: s.unroutable(),
		Backoff:    messaging.Exponential(200*time.Millisecond, 30*time.Second)})
	if err != nil {
		return err
	}
	s.Go("relay", relay.Run)
	if held, ok := store.(outbox.HeldStore); ok {
		s.heldEvents(held)
	}
	return nil
}

// unroutable holds events that no queue takes: services start in any order, and a consumer may not have its queue yet.
// A broker that does not notice keeps them instead: see GroupStart.
func (s *Service) unroutable() outbox.Unroutable {
	if messaging.FeaturesOf(s.Broker).Unroutable {
		return outbox.UnroutableHold
	}
	return outbox.UnroutableDiscard
}

// GroupStart is where a new group begins: with what the broker has kept for it, where it does.
func (s *Service) GroupStart() messaging.Start {
	if messaging.FeaturesOf(s.Broker).Replay {
		return messaging.StartEarliest()
	}
	return messaging.Start{}
}

// HandlerRetry is for handlers of events whose failures end by themselves, such as those of a database or of a service
// that is down: about an hour. What a handler can never handle it refuses with messaging.Permanent.
var HandlerRetry = messaging.Retry{Attempts: 100, Backoff: messaging.Exponential(200*time.Millisecond, time.Minute)}

// Router makes a router over the broker, and runs it.
func (s *Service) Router() (*messaging.Router, error) {
	r, err := messaging.NewRouter(s.Broker, messaging.RouterConfig{Logger: s.Log, TracerProvider: s.Tel.TracerProvider,
		MeterProvider: s.Tel.MeterProvider, Propagator: s.Tel.Propagator, DrainTimeout: 6 * time.Second})
	if err != nil {
		return nil, err
	}
	s.Go("router", r.Run)
	return r, nil
}
