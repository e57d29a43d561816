// Package sagasql keeps sagas in PostgreSQL or SQLite: one row a saga.
//
//	store, err := sagasql.New(db, sagasql.Config{})
//	o, err := saga.New(store, saga.Config{}, PlaceOrder)
//
// A saga that is started inside a transaction of db begins when that commits. Its tables are made by EnsureSchema or
// package migrate.
package sagasql

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
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
	// History keeps a row for each state that a saga has been in, in the commit that makes the state: who owned it, how far
	// each step had come, what failed. It does not keep the saga's own state. Default off: it about doubles what is
	// written, and the rows stay until Prune.
	History bool
}

// gather bounds the wait for company under load: it is shorter than what fewer commits save.
const gather = time.Millisecond

// Store is a saga.Store. It is safe for concurrent use.
type Store struct {
	db      *sqldb.DB
	prefix  string
	history bool

	inserts groupcommit.Group[saga.Record]
	saves   groupcommit.Group[saga.Record]
	plan    groupcommit.Plan // of several saves
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
	s := &Store{db: db, prefix: prefix, history: cfg.History}
	s.inserts = groupcommit.Group[saga.Record]{Flush: s.insertAll, Gather: gather}
	s.saves = groupcommit.Group[saga.Record]{Flush: s.saveAll, Gather: gather}
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

// sql puts the prefix and the database's clock, in microseconds, into a statement. All processes on a SQLite file share
// the machine's clock; SQLite's own view of it is cut to milliseconds, by which what is due now would not be due yet.
func (s *Store) sql(query string) string {
	now := "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
	if s.db.Dialect() == sqldb.SQLite {
		now = strconv.FormatInt(time.Now().UnixMicro(), 10)
	}
	return strings.NewReplacer("sillar_", s.prefix, "@now", now, "@columns", columns).Replace(query)
}

const columns = `id, name, version, shape, status, position, state, steps, failed_step, cause, headers, audit,
	revision, fence, owner, wake_at, signals, signal_seq, created_at, updated_at`

// Insert implements saga.Store. Outside a transaction, sagas that are started at the same time share a commit.
func (s *Store) Insert(ctx context.Context, r saga.Record) (saga.Record, bool, error) {
	r.Revision = 1
	var err error
	if s.InTx(ctx) {
		err = s.insertAll(ctx, []saga.Record{r})[0]
	} else {
		err = s.inserts.Do(ctx, r)
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
	list, err := s.read(ctx, query, id)
	if err != nil {
		return saga.Record{}, fmt.Errorf("sagasql: get %s: %w", id, err)
	}
	if len(list) == 0 {
		return saga.Record{}, saga.ErrNotFound
	}
	return list[0], nil
}

// Claim implements saga.Store. On PostgreSQL several orchestrators claim at once without waiting for each other.
func (s *Store) Claim(ctx context.Context, node string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	if len(kinds) == 0 || limit <= 0 {
		return nil, nil
	}
	where, args := kindsSQL(kinds, limit)
	skip := ""
	if s.db.Dialect() == sqldb.PostgreSQL {
		skip = "FOR UPDATE OF s SKIP LOCKED"
	}
	find := s.sql(`SELECT @columns FROM sillar_sagas s WHERE status IN ('RUNNING', 'COMPENSATING') AND (` + where + `)
		AND (owner = '' AND wake_at <= @now OR owner <> '' AND NOT EXISTS
			(SELECT 1 FROM sillar_orchestrators o WHERE o.node = s.owner AND o.expires_at > @now))
		ORDER BY wake_at, id LIMIT $1 ` + skip)
	// The look outside a transaction costs little and mostly finds nothing.
	if skip == "" {
		if due, err := s.read(ctx, find, args...); err != nil || len(due) == 0 {
			return nil, claimErr(err)
		}
	}
	var out []saga.Claimed
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		out = nil
		due, err := s.read(ctx, find, args...)
		if err != nil || len(due) == 0 {
			return err
		}
		ids := []any{sqldb.Replan, node}
		for _, r := range due {
			taken := r.Owner != ""
			if taken {
				// The rows are locked, the look at the leases is as old as the statement: a node that has come and
				// claimed since then is alive. A statement of its own sees it.
				alive := 0
				err := s.db.Querier(ctx).QueryRow(ctx, s.sql("SELECT count(*) FROM sillar_orchestrators WHERE node = $1 AND expires_at > @now"), r.Owner).Scan(&alive)
				if err != nil {
					return err
				}
				if alive > 0 {
					continue
				}
			}
			ids = append(ids, r.ID)
			r.Owner, r.Fence, r.Revision = node, r.Fence+1, r.Revision+1
			out = append(out, saga.Claimed{Record: r, TakenOver: taken})
		}
		if len(out) == 0 {
			return nil
		}
		own := s.returning("", "UPDATE sillar_sagas SET owner = $1, fence = fence + 1, revision = revision + 1 WHERE id IN ("+strings.Join(marks(1, len(out)), ", ")+")")
		if _, err = s.db.Querier(ctx).Exec(ctx, s.sql(own), ids...); err != nil {
			return err
		}
		return s.tell(ctx, ids[2:]...)
	})
	if err != nil {
		return nil, claimErr(err)
	}
	return out, nil
}

func claimErr(err error) error {
	if err != nil {
		return fmt.Errorf("sagasql: claim: %w", err)
	}
	return nil
}

func kindsSQL(kinds []saga.Kind, first ...any) (string, []any) {
	args, parts := first, make([]string, len(kinds))
	for i, k := range kinds {
		args = append(args, k.Name, k.Version)
		parts[i] = fmt.Sprintf("name = $%d AND version = $%d", len(args)-1, len(args))
	}
	return strings.Join(parts, " OR "), args
}

// Save implements saga.Store. Outside a transaction, writes that come at the same time share a commit.
func (s *Store) Save(ctx context.Context, r saga.Record) error {
	var err error
	if s.InTx(ctx) {
		err = s.saveAll(ctx, []saga.Record{r})[0]
	} else {
		err = s.saves.Do(ctx, r)
	}
	if err == nil {
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
func (s *Store) Signal(ctx context.Context, id, name string, payload []byte, check func(saga.Record) error) (first bool, err error) {
	lock := ""
	if s.db.Dialect() == sqldb.PostgreSQL {
		lock = " FOR UPDATE"
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
		if err := check(r); err != nil {
			return err
		}
		if r.Signals == nil {
			r.Signals = map[string][]byte{}
		}
		r.Signals[name] = payload
		e, err := encode(r)
		if err != nil {
			return err
		}
		if _, err := s.db.Querier(ctx).Exec(ctx, s.sql("UPDATE sillar_sagas SET signals = $1, signal_seq = signal_seq + 1, wake_at = @now WHERE id = $2"),
			e.signals, id); err != nil {
			return fmt.Errorf("sagasql: signal %s of %s: %w", name, id, err)
		}
		first = true
		return nil
	})
	return first, err
}

// Heartbeat implements saga.Store.
func (s *Store) Heartbeat(ctx context.Context, node string, lease time.Duration) error {
	_, err := s.db.Querier(ctx).Exec(ctx, s.sql(`INSERT INTO sillar_orchestrators (node, expires_at) VALUES ($1, @now + $2)
		ON CONFLICT (node) DO UPDATE SET expires_at = excluded.expires_at`), node, lease.Microseconds())
	if err != nil {
		return fmt.Errorf("sagasql: heartbeat: %w", err)
	}
	return nil
}

// Leave implements saga.Store. It clears away leases that ended long ago, too.
func (s *Store) Leave(ctx context.Context, node string) error {
	day := (24 * time.Hour).Microseconds()
	_, err := s.db.Querier(ctx).Exec(ctx, s.sql("DELETE FROM sillar_orchestrators WHERE node = $1 OR expires_at < @now - $2"), node, day)
	if err != nil {
		return fmt.Errorf("sagasql: leave: %w", err)
	}
	return nil
}

// List implements saga.Store.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Record, error) {
	query, args := "SELECT @columns FROM sillar_sagas WHERE id > $1", []any{f.After}
	if f.Name != "" {
		args = append(args, f.Name)
		query += fmt.Sprintf(" AND name = $%d", len(args))
	}
	if len(f.Statuses) > 0 {
		var marks []string
		for _, st := range f.Statuses {
			args = append(args, string(st))
			marks = append(marks, fmt.Sprintf("$%d", len(args)))
		}
		query += " AND status IN (" + strings.Join(marks, ", ") + ")"
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	args = append(args, limit)
	list, err := s.read(ctx, s.sql(query+fmt.Sprintf(" ORDER BY id LIMIT $%d", len(args))), args...)
	if err != nil {
		return nil, fmt.Errorf("sagasql: list: %w", err)
	}
	return list, nil
}

// Shapes implements saga.Store.
func (s *Store) Shapes(ctx context.Context, k saga.Kind) (shapes []string, err error) {
	rows, err := s.db.Querier(ctx).Query(ctx, s.sql(`SELECT DISTINCT shape FROM sillar_sagas
		WHERE name = $1 AND version = $2 AND status IN ('RUNNING', 'COMPENSATING')`), k.Name, k.Version)
	if err != nil {
		return nil, fmt.Errorf("sagasql: shapes: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var shape string
		if err := rows.Scan(&shape); err != nil {
			return nil, fmt.Errorf("sagasql: shapes: %w", err)
		}
		shapes = append(shapes, shape)
	}
	return shapes, rows.Err()
}

// encoded is a record's columns that hold JSON.
type encoded struct{ steps, headers, audit, signals string }

func encode(r saga.Record) (encoded, error) {
	var e encoded
	signals := map[string]json.RawMessage{}
	for k, v := range r.Signals {
		signals[k] = v
	}
	for _, c := range []struct {
		to   *string
		from any
	}{{&e.steps, r.Steps}, {&e.headers, r.Headers}, {&e.audit, r.Audit}, {&e.signals, signals}} {
		raw, err := json.Marshal(c.from)
		if err != nil {
			return e, fmt.Errorf("sagasql: encode %s: %w", r.ID, err)
		}
		*c.to = string(raw)
	}
	return e, nil
}

func (s *Store) read(ctx context.Context, query string, args ...any) (list []saga.Record, err error) {
	rows, err := s.db.Querier(ctx).Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var (
			r                      saga.Record
			e                      encoded
			status, state          string
			wake, created, updated int64
			signals                map[string]json.RawMessage
		)
		if err := rows.Scan(&r.ID, &r.Name, &r.Version, &r.Shape, &status, &r.Cursor, &state, &e.steps, &r.FailedStep, &r.Cause, &e.headers,
			&e.audit, &r.Revision, &r.Fence, &r.Owner, &wake, &e.signals, &r.SignalSeq, &created, &updated); err != nil {
			return nil, err
		}
		for _, c := range []struct {
			from string
			to   any
		}{{e.steps, &r.Steps}, {e.headers, &r.Headers}, {e.audit, &r.Audit}, {e.signals, &signals}} {
			if err := json.Unmarshal([]byte(c.from), c.to); err != nil {
				return nil, fmt.Errorf("sagasql: decode %s: %w", r.ID, err)
			}
		}
		for k, v := range signals {
			if r.Signals == nil {
				r.Signals = map[string][]byte{}
			}
			r.Signals[k] = v
		}
		r.Status, r.State = saga.Status(status), []byte(state)
		r.WakeAt, r.CreatedAt, r.UpdatedAt = time.UnixMicro(wake).UTC(), time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		list = append(list, r)
	}
	return list, rows.Err()
}
