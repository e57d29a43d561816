// Package sqloutbox is an outbox in PostgreSQL or SQLite: an event is a row, written in the transaction that the
// context carries.
//
//	box, err := sqloutbox.New(db, sqloutbox.Config{Source: "orders"})
//	err = db.InTx(ctx, func(ctx context.Context) error {
//		...
//		return box.Publish(ctx, "orders.created", OrderCreated{ID: "42"})
//	})
//
// Package outbox has the relay and the guarantees. On PostgreSQL a relay holds one connection of the pool, to be woken
// by NOTIFY; in-process commits wake it directly, on SQLite too.
package sqloutbox

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations make the table sillar_outbox; see sqldb.Migrations.
//
//go:embed migrations
var Migrations embed.FS

// Config tunes an Outbox.
type Config struct {
	// Source names the service in events that do not name one. Required for publishing those.
	Source string
	// Prefix begins the table's name. Default sqldb.DefaultPrefix.
	Prefix string
	// Propagator writes correlation id and trace of the transaction's context into the headers. Default both.
	Propagator propagation.TextMapPropagator
}

// Outbox is a messaging.Publisher whose events are part of a transaction, and the store of a relay.
type Outbox struct {
	db     *sqldb.DB
	cfg    Config
	prefix string
	table  string
	now    string // SQL: the clock in microseconds, the same all through a statement; on SQLite see clocked

	mu      sync.Mutex
	waiting map[chan struct{}]struct{} // relays of this process
	timer   *time.Timer                // the next NOTIFY
}

var (
	_ messaging.Publisher = (*Outbox)(nil)
	_ outbox.Store        = (*Outbox)(nil)
)

// New makes an outbox over a database. The table must exist: see Migrations and EnsureSchema.
func New(db *sqldb.DB, cfg Config) (*Outbox, error) {
	if db == nil {
		return nil, errors.New("sqloutbox: New needs a database")
	}
	prefix, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	o := &Outbox{db: db, cfg: cfg, prefix: prefix, table: prefix + "outbox", waiting: map[chan struct{}]struct{}{},
		now: "@now"}
	if db.Dialect() == sqldb.PostgreSQL {
		o.now = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)"
	}
	return o, nil
}

// Must returns o or panics with err.
func Must(o *Outbox, err error) *Outbox {
	if err != nil {
		panic(err)
	}
	return o
}

// EnsureSchema makes the table where it does not exist; see sqldb.DB.EnsureSchema.
func (o *Outbox) EnsureSchema(ctx context.Context) error {
	return o.db.EnsureSchema(ctx, Migrations, o.prefix)
}

// Publish stores an event in the transaction that ctx carries; outside one it returns sqldb.ErrNoTx.
func (o *Outbox) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	if _, err := o.db.Tx(ctx); err != nil {
		return fmt.Errorf("sqloutbox: publish %s: %w", topic, err)
	}
	e, err := messaging.NewEnvelope(topic, payload, opts...)
	if err == nil {
		e, err = driver.Fill(ctx, e, o.cfg.Source, o.cfg.Propagator)
	}
	if err != nil {
		return err
	}
	return o.insert(ctx, e)
}

// PublishBatch stores several. After an error the transaction must be rolled back.
func (o *Outbox) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	errs := make([]error, len(events))
	for i, e := range events {
		if e, errs[i] = driver.Fill(ctx, e, o.cfg.Source, o.cfg.Propagator); errs[i] == nil {
			errs[i] = o.insert(ctx, e)
		}
	}
	return driver.Batch(errs)
}

func (o *Outbox) insert(ctx context.Context, e messaging.Envelope) error {
	if _, err := o.db.Tx(ctx); err != nil {
		return fmt.Errorf("sqloutbox: publish %s: %w", e.Type, err)
	}
	headers, err := json.Marshal(e.Headers)
	if err != nil {
		return fmt.Errorf("%w: headers: %w", messaging.ErrInvalid, err)
	}
	body := e.Body
	if body == nil {
		body = []byte{}
	}
	due := int64(0)
	if time.Now().Before(e.DeliverAt) { // held, without stopping its key
		due = -e.DeliverAt.UnixMicro()
	}
	_, err = o.querier(ctx).Exec(ctx, "INSERT INTO "+o.table+
		" (id, topic, source, key, content_type, occurred_at, headers, body, created_at, due_at)"+
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, "+o.now+", $9)",
		e.ID, e.Type, e.Source, e.Key, e.ContentType, e.Time.UnixMicro(), string(headers), body, due)
	if err != nil {
		return fmt.Errorf("sqloutbox: publish %s: %w", e.Type, err)
	}
	o.db.AfterCommit(ctx, o.signal)
	return nil
}

// maxPending bounds what Pending counts, so that metrics do not read all of an outbox that has filled up.
const maxPending = 100_000

// scheduled is what holds of events that were stored with a time of delivery.
const scheduled = "due_at < -1 AND attempts = 0"

// Pending implements outbox.Store. It counts up to 100,000, events that are to be delivered later included; the oldest
// is one that could be published by now.
func (o *Outbox) Pending(ctx context.Context) (count int64, oldest time.Time, err error) {
	var at int64
	q := o.querier(o.db.WithoutTx(ctx))
	// Events with a later time may come before all others: they are passed over by the index of what is held.
	err = q.QueryRow(ctx, fmt.Sprintf(`SELECT (SELECT count(*) FROM (SELECT 1 FROM %[1]s LIMIT %[2]d) c),
		coalesce((SELECT min(at) FROM (
			SELECT * FROM (SELECT created_at AS at FROM %[1]s WHERE due_at = 0 ORDER BY seq LIMIT 1) new
			UNION ALL SELECT min(CASE WHEN %[3]s THEN -due_at ELSE created_at END) FROM (
				SELECT due_at, attempts, created_at FROM %[1]s WHERE due_at <> 0 ORDER BY abs(due_at) LIMIT %[2]d) held
			WHERE NOT (%[3]s AND -due_at > %[4]s)) oldest), 0)`,
		o.table, maxPending, scheduled, o.now)).Scan(&count, &at)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("sqloutbox: count: %w", err)
	}
	if at > 0 {
		oldest = time.UnixMicro(at).UTC()
	}
	return count, oldest, nil
}
