package sqlevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// cursor is a place in the order of reading. Its text is <xid>-<position> on PostgreSQL, <position> on SQLite.
type cursor struct{ xid, position uint64 }

func (s *Store) parse(text string) (c cursor, err error) {
	if text == "" {
		return c, nil
	}
	xid, position, both := strings.Cut(text, "-")
	if both != (s.db.Dialect() == sqldb.PostgreSQL) {
		return c, eventstore.ErrCursor
	}
	if !both {
		xid, position = "0", text
	}
	var err1, err2 error
	c.xid, err1 = strconv.ParseUint(xid, 10, 64)
	c.position, err2 = strconv.ParseUint(position, 10, 63)
	if err1 != nil || err2 != nil {
		return c, eventstore.ErrCursor
	}
	return c, nil
}

// after is the condition for what follows a cursor and may be read, and its arguments.
func (s *Store) after(c cursor) (string, []any) {
	if s.db.Dialect() == sqldb.PostgreSQL {
		return "(xid, position) > ($1::text::xid8, $2::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())",
			[]any{strconv.FormatUint(c.xid, 10), int64(c.position)}
	}
	return "position > $1", []any{int64(c.position)}
}

// Read implements eventstore.Store.
func (s *Store) Read(ctx context.Context, from string, limit int) ([]eventstore.Recorded, string, error) {
	c, err := s.parse(from)
	if err != nil {
		return nil, "", err
	}
	if limit <= 0 {
		return nil, from, nil
	}
	if err := s.verify(ctx); err != nil {
		return nil, "", fmt.Errorf("sqlevents: read: %w", err)
	}
	where, args := s.after(c)
	order := "position"
	if s.db.Dialect() == sqldb.PostgreSQL {
		order = "xid, position"
	}
	query := s.sql("SELECT " + s.columns() + " FROM sillar_events WHERE " + where + " ORDER BY " + order +
		fmt.Sprintf(" LIMIT $%d", len(args)+1))
	events, xid, err := s.read(ctx, query, append(args, limit)...)
	if err != nil {
		return nil, "", fmt.Errorf("sqlevents: read: %w", err)
	}
	if len(events) == 0 {
		if err := s.foreign(ctx, c); err != nil {
			return nil, "", fmt.Errorf("sqlevents: read: %w", err)
		}
		return nil, from, nil
	}
	next := strconv.FormatInt(events[len(events)-1].Position, 10)
	if xid != "" {
		next = xid + "-" + next
	}
	return events, next, nil
}

// maxLag bounds what Lag counts, so that watching a projection that is rebuilt does not read all events each time.
const maxLag = 100_000

// Lag implements eventstore.Store. It counts up to 100,000.
func (s *Store) Lag(ctx context.Context, from string) (n int64, err error) {
	c, err := s.parse(from)
	if err != nil {
		return 0, err
	}
	if err := s.verify(ctx); err != nil {
		return 0, fmt.Errorf("sqlevents: lag: %w", err)
	}
	where, args := s.after(c)
	if err := s.db.Querier(ctx).QueryRow(ctx, s.sql(fmt.Sprintf(
		"SELECT count(*) FROM (SELECT 1 FROM sillar_events WHERE %s LIMIT %d) lag", where, maxLag)),
		args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("sqlevents: lag: %w", err)
	}
	return n, nil
}

// Redact implements eventstore.Store.
func (s *Store) Redact(ctx context.Context, stream string) error {
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		for _, query := range []string{
			"UPDATE sillar_events SET data = 'null', metadata = '{}' WHERE stream = $1",
			"DELETE FROM sillar_snapshots WHERE stream = $1",
		} {
			if _, err := s.db.Querier(ctx).Exec(ctx, s.sql(query), stream); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sqlevents: redact %s: %w", stream, err)
	}
	return nil
}

// SaveSnapshot implements eventstore.Store.
func (s *Store) SaveSnapshot(ctx context.Context, snap eventstore.Snapshot) error {
	_, err := s.db.Querier(ctx).Exec(ctx,
		s.sql(`INSERT INTO sillar_snapshots (stream, schema, version, state) VALUES ($1, $2, $3, $4)
		ON CONFLICT (stream, schema) DO UPDATE SET version = excluded.version, state = excluded.state
		WHERE sillar_snapshots.version < excluded.version`), snap.Stream, snap.Schema, snap.Version, string(snap.State))
	if err != nil {
		return fmt.Errorf("sqlevents: save a snapshot of %s: %w", snap.Stream, err)
	}
	return nil
}

// LoadSnapshot implements eventstore.Store.
func (s *Store) LoadSnapshot(ctx context.Context, stream string, schema int) (eventstore.Snapshot, bool, error) {
	snap := eventstore.Snapshot{Stream: stream, Schema: schema}
	var state string
	err := s.db.Querier(ctx).QueryRow(ctx,
		s.sql("SELECT version, state FROM sillar_snapshots WHERE stream = $1 AND schema = $2"), stream, schema).
		Scan(&snap.Version, &state)
	if errors.Is(err, sqldb.ErrNoRows) {
		return snap, false, nil
	}
	if err != nil {
		return snap, false, fmt.Errorf("sqlevents: load the snapshot of %s: %w", stream, err)
	}
	snap.State = json.RawMessage(state)
	return snap, true, nil
}

// Checkpoint implements eventstore.Store.
func (s *Store) Checkpoint(ctx context.Context, projection string) (place string, err error) {
	err = s.db.Querier(ctx).QueryRow(ctx, s.sql("SELECT place FROM sillar_checkpoints WHERE projection = $1"),
		projection).Scan(&place)
	if err != nil && !errors.Is(err, sqldb.ErrNoRows) {
		return "", fmt.Errorf("sqlevents: checkpoint of %s: %w", projection, err)
	}
	return place, nil
}

// MoveCheckpoint implements eventstore.Store.
func (s *Store) MoveCheckpoint(ctx context.Context, projection, from, to string) error {
	query, args := "UPDATE sillar_checkpoints SET place = $2 WHERE projection = $1 AND place = $3",
		[]any{projection, to, from}
	if from == "" {
		query = `INSERT INTO sillar_checkpoints AS c (projection, place) VALUES ($1, $2)
			ON CONFLICT (projection) DO UPDATE SET place = excluded.place WHERE c.place = ''`
		args = args[:2]
	}
	n, err := s.db.Querier(ctx).Exec(ctx, s.sql(query), args...)
	if err != nil {
		return fmt.Errorf("sqlevents: move the checkpoint of %s: %w", projection, err)
	}
	if n == 0 {
		return fmt.Errorf("%w: %s", eventstore.ErrCheckpoint, projection)
	}
	return nil
}
