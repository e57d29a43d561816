// Package sagasql keeps sagas in PostgreSQL or SQLite: one row a saga.
//
//	store, err := sagasql.New(db, sagasql.Config{})
//	o, err := saga.New(store, saga.Config{}, PlaceOrder)
//
// A saga that is started inside a transaction of db begins when that commits. Its tables are made by EnsureSchema or
// package migrate.
//
// On PostgreSQL a process whose callers wait for sagas that run in other processes listens to NOTIFY on a connection of
// its own. The others notify, at most every 10 ms, only while a process listens. Behind a pooler in transaction mode,
// over database/sql and on SQLite callers learn of ends by asking, every 250 ms.
package sagasql

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/groupcommit"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// Migrations makes the tables sillar_sagas, sillar_saga_history and sillar_orchestrators.
//
//go:embed migrations
var Migrations embed.FS

// Config tunes a Store.
type Config struct {
	// Prefix begins the tables' names. Empty means sqldb.DefaultPrefix.
	Prefix string
	// History keeps a row for each state that a saga has been in, in the commit that makes the state: who owned it, how
	// far each step had come, what failed. It does not keep the saga's own state. Default off: it about doubles what is
	// written, and the rows stay until Prune.
	History bool
}

// gather bounds how long a save waits for others to share its commit: less than a commit takes.
const gather = time.Millisecond

// Store is a saga.Store. It is safe for concurrent use.
type Store struct {
	db       *sqldb.DB
	prefix   string
	replacer *strings.Replacer
	history  bool

	inserts groupcommit.Group[write]
	saves   groupcommit.Group[write]
	plan    groupcommit.Plan // of several saves

	notifier notifier
}

var _ saga.Store = (*Store)(nil)

// New returns a store in db.
func New(db *sqldb.DB, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sagasql: New needs a database")
	}
	prefix, err := sqldb.Prefix(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	now := "@now"
	if db.Dialect() == sqldb.PostgreSQL {
		now = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
	}
	s := &Store{db: db, prefix: prefix, history: cfg.History,
		replacer: strings.NewReplacer("sillar_", prefix, "@now", now, "@columns", columns, "@qualified", qualified)}
	s.inserts = groupcommit.Group[write]{Flush: s.insertAll, Gather: gather}
	s.saves = groupcommit.Group[write]{Flush: s.saveAll, Gather: gather}
	return s, nil
}

// Must returns v or panics with err.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// EnsureSchema makes the tables where they do not exist.
func (s *Store) EnsureSchema(ctx context.Context) error {
	return s.db.EnsureSchema(ctx, Migrations, s.prefix)
}

// sql puts the prefix, the columns and, on PostgreSQL, the database's clock in microseconds into a statement. On SQLite
// @now stays a parameter: see clocked.
func (s *Store) sql(query string) string { return s.replacer.Replace(query) }

func (s *Store) querier(ctx context.Context) sqldb.Querier {
	if s.db.Dialect() == sqldb.SQLite {
		return clocked{s.db.Querier(ctx)}
	}
	return s.db.Querier(ctx)
}

// clocked binds @now to this machine's clock, which all processes on a SQLite file share. SQLite's own view of it is
// cut to milliseconds, by which what is due now would not be due yet. As a parameter it leaves the statement as it is,
// so that it is kept prepared.
type clocked struct{ sqldb.Querier }

func (c clocked) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return c.Querier.Exec(ctx, query, withNow(query, args)...)
}

func (c clocked) Query(ctx context.Context, query string, args ...any) (sqldb.Rows, error) {
	return c.Querier.Query(ctx, query, withNow(query, args)...)
}

func (c clocked) QueryRow(ctx context.Context, query string, args ...any) sqldb.Row {
	return c.Querier.QueryRow(ctx, query, withNow(query, args)...)
}

func withNow(query string, args []any) []any {
	if !strings.Contains(query, "@now") {
		return args
	}
	return append(slices.Clip(args), sql.Named("now", time.Now().UnixMicro()))
}

const columns = `id, name, version, shape, status, position, state, steps, failed_step, cause, headers, audit,
	revision, fence, owner, wake_at, signals, signal_seq, created_at, updated_at`

// qualified are the columns of sillar_sagas s.
var qualified = "s." + strings.Join(strings.FieldsFunc(columns, func(r rune) bool {
	return strings.ContainsRune(", \n\t", r)
}), ", s.")

// Insert implements saga.Store. Outside a transaction, sagas that are started at the same time share a commit.
func (s *Store) Insert(ctx context.Context, r saga.Record) (saga.Record, bool, error) {
	r.Revision = 1
	w, err := insertion(r)
	switch {
	case err != nil:
	case s.InTx(ctx):
		err = s.insertAll(ctx, []write{w})[0]
	default:
		err = s.inserts.Do(ctx, w)
	}
	if errors.Is(err, errMissed) {
		stored, err := s.Get(ctx, r.ID)
		return stored, false, err
	}
	if err != nil {
		return r, false, fmt.Errorf("sagasql: insert %s: %w", r.ID, err)
	}
	return r, true, nil
}

// InTx implements saga.Store.
func (s *Store) InTx(ctx context.Context) bool {
	_, err := s.db.Tx(ctx)
	return !errors.Is(err, sqldb.ErrNoTx)
}

// AfterCommit implements saga.Store.
func (s *Store) AfterCommit(ctx context.Context, fn func()) { s.db.AfterCommit(ctx, fn) }

// Get implements saga.Store.
func (s *Store) Get(ctx context.Context, id string) (saga.Record, error) {
	return s.get(ctx, s.sql("SELECT @columns FROM sillar_sagas WHERE id = $1"), id)
}

func (s *Store) get(ctx context.Context, query, id string) (saga.Record, error) {
	if !s.storable(id) {
		return saga.Record{}, saga.ErrNotFound
	}
	rows, err := s.read(ctx, query, id)
	if err == nil && len(rows) > 0 {
		err = rows[0].err
	}
	if err != nil {
		return saga.Record{}, fmt.Errorf("sagasql: get %s: %w", id, err)
	}
	if len(rows) == 0 {
		return saga.Record{}, saga.ErrNotFound
	}
	return rows[0].record, nil
}

// Save implements saga.Store. Outside a transaction, writes that come at the same time share a commit.
func (s *Store) Save(ctx context.Context, r saga.Record) error {
	w, err := saving(r)
	switch {
	case err != nil:
	case s.InTx(ctx):
		err = s.saveAll(ctx, []write{w})[0]
	default:
		err = s.saves.Do(ctx, w)
	}
	if err == nil {
		if r.Status.Ended() {
			s.notifyEnded(ctx, r.ID)
		}
		return nil
	}
	if !errors.Is(err, errMissed) {
		return fmt.Errorf("sagasql: save %s: %w", r.ID, err)
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

// Signal implements saga.Store.
func (s *Store) Signal(
	ctx context.Context,
	id, name string,
	payload func(saga.Record) ([]byte, error),
) (first bool, err error) {
	lock := ""
	if s.db.Dialect() == sqldb.PostgreSQL {
		lock = " FOR UPDATE"
	}
	if err := checkSignal(name); err != nil {
		return false, err
	}
	err = s.db.InTx(ctx, func(ctx context.Context) error {
		first = false
		r, err := s.get(ctx, s.sql("SELECT @columns FROM sillar_sagas WHERE id = $1"+lock), id)
		if err != nil {
			return err
		}
		if _, again := r.Signals[name]; again {
			return nil
		}
		if r.Status == saga.Completed || r.Status == saga.Compensated {
			return saga.ErrFinished
		}
		raw, err := payload(r)
		if err != nil {
			return err
		}
		if r.Signals == nil {
			r.Signals = map[string][]byte{}
		}
		r.Signals[name] = raw
		signals, err := marshalSignals(r)
		if err != nil {
			return err
		}
		if _, err := s.querier(ctx).Exec(ctx,
			s.sql("UPDATE sillar_sagas SET signals = $1, signal_seq = signal_seq + 1, wake_at = @now WHERE id = $2"),
			signals, id); err != nil {
			return fmt.Errorf("sagasql: signal %s of %s: %w", name, id, err)
		}
		first = true
		return nil
	})
	return first, err
}

// Heartbeat implements saga.Store. It finds out whether any process listens, too.
func (s *Store) Heartbeat(ctx context.Context, node string, lease time.Duration) (err error) {
	query := `INSERT INTO sillar_orchestrators (node, expires_at) VALUES ($1, @now + $2)
		ON CONFLICT (node) DO UPDATE SET expires_at = excluded.expires_at`
	if s.db.Pool() == nil {
		_, err = s.querier(ctx).Exec(ctx, s.sql(query), node, lease.Microseconds())
	} else {
		query += ` RETURNING EXISTS (SELECT 1 FROM sillar_orchestrators l WHERE l.node = $3 AND l.expires_at > @now)`
		var wanted bool
		err = s.querier(ctx).QueryRow(ctx, s.sql(query), node, lease.Microseconds(), listeners).Scan(&wanted)
		if err == nil {
			s.notifier.wanted.Store(wanted)
		}
	}
	if err != nil {
		return fmt.Errorf("sagasql: heartbeat: %w", err)
	}
	return nil
}

// Leave implements saga.Store. It clears away leases that ended long ago, too.
func (s *Store) Leave(ctx context.Context, node string) error {
	day := (24 * time.Hour).Microseconds()
	_, err := s.querier(ctx).
		Exec(ctx, s.sql("DELETE FROM sillar_orchestrators WHERE node = $1 OR expires_at < @now - $2"), node, day)
	if err != nil {
		return fmt.Errorf("sagasql: leave: %w", err)
	}
	return nil
}

// encoded holds the columns of a record that are JSON.
type encoded struct{ steps, headers, audit, signals string }

// marshal returns a value of the record as JSON.
func marshal(r saga.Record, v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("sagasql: encode %s: %w", r.ID, err)
	}
	return string(raw), nil
}

func marshalSignals(r saga.Record) (string, error) {
	signals := make(map[string]json.RawMessage, len(r.Signals))
	for k, v := range r.Signals {
		signals[k] = v
	}
	return marshal(r, signals)
}

// row is a saga as it was read. err says why its JSON does not decode; the other fields of the record are set then.
type row struct {
	record saga.Record
	err    error
}

// undecodable is the cause of a saga that does not decode.
func undecodable(err error) string { return "the stored saga does not decode: " + err.Error() }

func (s *Store) read(ctx context.Context, query string, args ...any) (list []row, err error) {
	rows, err := s.querier(ctx).Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer closeRows(rows, &err)
	for rows.Next() {
		var (
			r                      saga.Record
			e                      encoded
			status, state          string
			wake, created, updated int64
		)
		if err := rows.Scan(&r.ID, &r.Name, &r.Version, &r.Shape, &status, &r.Cursor, &state, &e.steps, &r.FailedStep,
			&r.Cause,
			&e.headers, &e.audit, &r.Revision, &r.Fence, &r.Owner, &wake, &e.signals, &r.SignalSeq, &created,
			&updated); err != nil {
			return nil, err
		}
		r.Status, r.State, r.WakeAt = saga.Status(status), []byte(state), time.UnixMicro(wake).UTC()
		r.CreatedAt, r.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		derr := e.decode(&r)
		list = append(list, row{r, derr})
	}
	return list, rows.Err()
}

func (e encoded) decode(r *saga.Record) error {
	var signals map[string]json.RawMessage
	for _, c := range []struct {
		column, from string
		to           any
	}{{"steps", e.steps, &r.Steps}, {"headers", e.headers, &r.Headers}, {"audit", e.audit, &r.Audit},
		{"signals", e.signals, &signals}} {
		if err := json.Unmarshal([]byte(c.from), c.to); err != nil {
			return fmt.Errorf("column %s: %w", c.column, err)
		}
	}
	for name, payload := range signals {
		if r.Signals == nil {
			r.Signals = map[string][]byte{}
		}
		r.Signals[name] = payload
	}
	return nil
}

// closeRows closes rows and adds the error to err.
func closeRows(rows interface{ Close() error }, err *error) { *err = errors.Join(*err, rows.Close()) }
