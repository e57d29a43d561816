// Package sqlevents keeps events in PostgreSQL or SQLite.
//
//	store, err := sqlevents.New(db, sqlevents.Config{
//		OnAppend: func(ctx context.Context, events []eventstore.Recorded) error {
//			return publish(ctx, outbox, events) // in the transaction of the append
//		},
//	})
//
// # Order
//
// On PostgreSQL a number from a sequence says when a transaction asked, not when it committed: a reader that remembers
// the last number loses what commits later with a smaller one. So events are read by (transaction id, position), and
// only those of transactions older than every one still running: what is read is complete. An append locks
// its stream before its transaction has an id. One whose transaction had an id, and is older than the last one of the
// stream, is begun anew by the outermost InTx, which then locks the stream first: so the order of a stream's versions
// is the order of its transaction ids.
//
// Followers of other processes are woken where Store.Listen runs, and look every Config.Poll besides.
//
// Two consequences: a writing transaction that stays open holds readers up, in every database of the server; and a
// dump restored into another server brings transaction ids that may be ahead of that server's. That is noticed
// (ErrRestored), and Store.RepairRestored brings them down, once, before anything appends there; physical copies need
// nothing. On SQLite there is one writer, and positions are the order of commits.
package sqlevents

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/groupcommit"
	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Migrations makes the tables sillar_streams, sillar_events, sillar_snapshots and sillar_checkpoints.
//
//go:embed migrations
var Migrations embed.FS

// Config tunes a Store. The zero Config is useful.
type Config struct {
	// Prefix begins the tables' names. Empty means sqldb.DefaultPrefix.
	Prefix string
	// OnAppend is called inside the transaction of every append, which ctx carries. Its error undoes the append.
	OnAppend func(ctx context.Context, events []eventstore.Recorded) error
	// Poll is how often Wait looks for what other processes append, at most a second. 0 means 200 ms.
	Poll time.Duration
	// Coalesce is how long appends are gathered on PostgreSQL before other processes, which Listen, are notified of them
	// all at once. 0 means 10 ms; negative never notifies them.
	Coalesce time.Duration
	// Logger logs when Listen does not listen. Nil means slog.Default.
	Logger *slog.Logger
	// Propagator writes correlation id and trace into the metadata. Nil means both.
	Propagator propagation.TextMapPropagator
}

// Store is an eventstore.Store. It is safe for concurrent use.
type Store struct {
	db     *sqldb.DB
	cfg    Config
	prefix string
	one    moves // of one event
	many   moves
	group  groupcommit.Group[*appending]
	plan   groupcommit.Plan // of what the group runs
	hot    hotStreams

	verified atomic.Pointer[time.Time] // when verify found nothing wrong
	seen     atomic.Uint64             // a transaction id below which the server has given all

	mu      sync.Mutex
	changed chan struct{}
	telling *time.Timer // the next NOTIFY
}

var _ eventstore.Store = (*Store)(nil)

// New returns a store in db, whose tables must exist: see EnsureSchema and package migrate.
func New(db *sqldb.DB, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlevents: New needs a database")
	}
	prefix, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 200 * time.Millisecond
	}
	cfg.Poll = min(cfg.Poll, time.Second)
	if cfg.Coalesce == 0 {
		cfg.Coalesce = 10 * time.Millisecond
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	s := &Store{db: db, cfg: cfg, prefix: prefix, one: newMoves(prefix, false), many: newMoves(prefix, true),
		changed: make(chan struct{})}
	s.group.Flush = s.appendAll
	return s, nil
}

// Must returns s or panics with err.
func Must(s *Store, err error) *Store {
	if err != nil {
		panic(err)
	}
	return s
}

// EnsureSchema makes the tables where they do not exist.
func (s *Store) EnsureSchema(ctx context.Context) error {
	return s.db.EnsureSchema(ctx, Migrations, s.prefix)
}

func (s *Store) sql(query string) string { return strings.ReplaceAll(query, "sillar_", s.prefix) }

// Append implements eventstore.Store. On PostgreSQL, outside a transaction and without OnAppend, it is one statement,
// which it shares with other appends of this Store that come while the one before runs. When ctx ends meanwhile it is
// not known whether the events were appended. A conflict leaves the transaction that ctx carries as it was.
func (s *Store) Append(ctx context.Context, stream string, expected int64,
	events ...eventstore.Event) ([]eventstore.Recorded, error) {
	given := events
	events, err := eventstore.Prepare(ctx, s.cfg.Propagator, stream, expected, events, id.New)
	if err != nil {
		return nil, err
	}
	if err := s.verify(ctx); err != nil {
		return nil, fmt.Errorf("sqlevents: append to %s: %w", stream, err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	out := make([]eventstore.Recorded, len(events))
	for i, e := range events {
		out[i] = eventstore.Recorded{Event: e, Stream: stream, Time: now}
	}
	insert := s.insertSQLite
	if s.db.Dialect() == sqldb.PostgreSQL {
		insert = s.insertLocked
	}
	var stale *repository.ConflictError
	whole := func(ctx context.Context) error {
		stale = nil
		if err := insert(ctx, stream, expected, out); errors.As(err, &stale) {
			return nil // it has changed nothing, and must not doom a transaction of the caller's, who may look again
		} else if err != nil {
			return err
		}
		s.db.AfterCommit(ctx, s.wake)
		if s.cfg.OnAppend == nil {
			return nil
		}
		return s.cfg.OnAppend(ctx, out)
	}
	_, terr := s.db.Tx(ctx)
	alone := errors.Is(terr, sqldb.ErrNoTx)
	if alone && s.cfg.OnAppend == nil && s.db.Dialect() == sqldb.PostgreSQL {
		err = s.autocommit(ctx, stream, expected, out)
	} else {
		if err = s.db.InTx(ctx, whole); err == nil && stale != nil {
			err = stale
		}
	}
	if constraint, fields, ok := sqldb.UniqueViolation(err); ok {
		err = &repository.UniqueError{Constraint: constraint, Fields: fields, Err: err}
	}
	if alone || errors.Is(err, repository.ErrConflict) { // a violation has ended the transaction around it
		if out, rerr := eventstore.Repeated(ctx, s, stream, expected, given, events, err); rerr == nil && err != nil {
			return out, nil //nolint:nilerr // it had been appended before
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sqlevents: append to %s: %w", stream, err)
	}
	return out, nil
}

// ErrOvertaken says that a younger transaction has appended to the stream already. InTx runs the transaction again,
// with the stream locked before anything else; in a transaction of the caller's own (WithPgxTx, WithSQLTx) that is up
// to the caller.
var ErrOvertaken = errors.New("sqlevents: a younger transaction has appended to the stream")

// overtakenError is ErrOvertaken with the lock that a further run takes first.
type overtakenError struct {
	s      *Store
	stream string
}

func (e *overtakenError) Error() string        { return ErrOvertaken.Error() + " " + e.stream }
func (e *overtakenError) Is(target error) bool { return target == ErrOvertaken }
func (e *overtakenError) Retryable() bool      { return true }

func (e *overtakenError) Lock() (string, func(context.Context) error) {
	return e.s.prefix + e.stream, func(ctx context.Context) error { return e.s.lock(ctx, e.stream) }
}

// lock locks a stream that exists. PostgreSQL gives a transaction its id with the first lock it holds or the first row
// it writes: one that locks the stream first is not overtaken by others that append to it.
func (s *Store) lock(ctx context.Context, stream string) error {
	_, err := s.db.Querier(ctx).Exec(ctx, s.sql("SELECT FROM sillar_streams WHERE stream = $1 FOR UPDATE"), stream)
	return err
}

// insertLocked locks the stream, and appends.
func (s *Store) insertLocked(ctx context.Context, stream string, expected int64, out []eventstore.Recorded) error {
	if expected != eventstore.NoStream {
		if err := s.lock(ctx, stream); err != nil {
			return err
		}
	}
	return s.insertPostgres(ctx, stream, expected, out)
}

func (s *Store) conflict(ctx context.Context, stream string, expected int64) error {
	var actual int64
	err := s.db.Querier(ctx).QueryRow(ctx, s.sql("SELECT version FROM sillar_streams WHERE stream = $1"),
		stream).Scan(&actual)
	if err != nil && !errors.Is(err, sqldb.ErrNoRows) {
		return err
	}
	if actual == deletedVersion {
		return fmt.Errorf("%w: %s", eventstore.ErrDeleted, stream)
	}
	if actual == expected || expected == eventstore.AnyVersion {
		if restored, err := s.restored(ctx); err != nil || restored {
			return cmp.Or(err, ErrRestored)
		}
		return &overtakenError{s, stream}
	}
	return &repository.ConflictError{ID: stream, Expected: expected, Actual: actual}
}

// insertSQLite runs in the transaction of the only writer.
func (s *Store) insertSQLite(ctx context.Context, stream string, expected int64, out []eventstore.Recorded) error {
	q := s.db.Querier(ctx)
	var version int64
	err := q.QueryRow(ctx, s.sql("SELECT version FROM sillar_streams WHERE stream = $1"), stream).Scan(&version)
	if err != nil && !errors.Is(err, sqldb.ErrNoRows) {
		return err
	}
	if version == deletedVersion {
		return fmt.Errorf("%w: %s", eventstore.ErrDeleted, stream)
	}
	if expected != eventstore.AnyVersion && expected != version {
		return &repository.ConflictError{ID: stream, Expected: expected, Actual: version}
	}
	if _, err := q.Exec(ctx, s.sql(`INSERT INTO sillar_streams (stream, version) VALUES ($1, $2)
		ON CONFLICT (stream) DO UPDATE SET version = excluded.version`), stream, version+int64(len(out))); err != nil {
		return err
	}
	for i := range out {
		r := &out[i]
		m, err := json.Marshal(r.Metadata)
		if err != nil {
			return fmt.Errorf("encode the metadata: %w", err)
		}
		r.Version = version + int64(i) + 1
		err = q.QueryRow(ctx,
			s.sql(`INSERT INTO sillar_events (stream, version, id, type, schema, data, metadata, recorded_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING position`),
			stream, r.Version, r.ID, r.Type, r.Schema, string(r.Data), string(m), r.Time.UnixMicro()).Scan(&r.Position)
		if err != nil {
			return err
		}
	}
	return nil
}

// page is how many events are fetched at once: no connection is held while the caller looks at them.
const page = 500

// LoadFrom implements eventstore.Store.
func (s *Store) LoadFrom(ctx context.Context, stream string, after int64) iter.Seq2[eventstore.Recorded, error] {
	query := s.sql("SELECT " + s.columns() +
		" FROM sillar_events WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3")
	return func(yield func(eventstore.Recorded, error) bool) {
		if s.db.Dialect() == sqldb.PostgreSQL && !eventstore.Storable(stream) { // it would fail
			return
		}
		for after := after; ; { // it may be ranged over again
			events, _, err := s.read(ctx, query, stream, after, page)
			if err != nil {
				yield(eventstore.Recorded{}, fmt.Errorf("sqlevents: load %s: %w", stream, err))
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				after = e.Version
			}
			if len(events) < page {
				return
			}
		}
	}
}

func (s *Store) columns() string {
	if s.db.Dialect() == sqldb.PostgreSQL {
		// The name is another than the column's: ORDER BY xid would sort by the text, and 10 come before 9.
		return "xid::text AS transaction, position, stream, version, id, type, schema, data::text, metadata::text, " +
			"recorded_at"
	}
	return "'', position, stream, version, id, type, schema, data, metadata, recorded_at"
}

// read returns events, and the transaction id of the last one.
func (s *Store) read(ctx context.Context, query string,
	args ...any) (out []eventstore.Recorded, xid string, err error) {
	rows, err := s.db.Querier(ctx).Query(ctx, query, args...)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r eventstore.Recorded
		var data, meta string
		var at int64
		if err := rows.Scan(&xid, &r.Position, &r.Stream, &r.Version, &r.ID, &r.Type, &r.Schema, &data, &meta,
			&at); err != nil {
			return nil, "", err
		}
		r.Data, r.Time = json.RawMessage(data), time.UnixMicro(at).UTC()
		if err := json.Unmarshal([]byte(meta), &r.Metadata); err != nil {
			return nil, "", fmt.Errorf("decode the metadata of %s: %w", r.ID, err)
		}
		out = append(out, r)
	}
	return out, xid, rows.Err()
}
