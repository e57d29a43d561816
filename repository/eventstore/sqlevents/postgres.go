package sqlevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sillar-go/sillar/repository/eventstore"
)

// insertPostgres moves the stream and adds the events in one statement.
func (s *Store) insertPostgres(ctx context.Context, stream string, expected int64, out []eventstore.Recorded) error {
	query, args, err := s.statement(stream, expected, out)
	if err != nil {
		return err
	}
	rows, err := s.db.Querier(ctx).Query(ctx, query, args...)
	if err != nil {
		return err
	}
	n, err := scanPlaces(rows, out)
	if err := errors.Join(err, rows.Close()); err != nil {
		return err
	}
	if n == 0 {
		return s.conflict(ctx, stream, expected)
	}
	return nil
}

// scanPlaces reads where events have come to be.
func scanPlaces(rows interface {
	Next() bool
	Scan(dest ...any) error
}, out []eventstore.Recorded) (n int, err error) {
	for ; rows.Next(); n++ {
		if err := rows.Scan(&out[n].Version, &out[n].Position); err != nil {
			return n, err
		}
	}
	return n, nil
}

// statement returns what appends on PostgreSQL: no row comes back when the version is another.
func (s *Store) statement(stream string, expected int64, out []eventstore.Recorded) (string, []any, error) {
	moves := s.many
	args := []any{stream, int64(len(out)), out[0].Time.UnixMicro()}
	if len(out) == 1 {
		moves = s.one
		m, err := json.Marshal(out[0].Metadata)
		if err != nil {
			return "", nil, fmt.Errorf("encode the metadata: %w", err)
		}
		args = append(args, out[0].ID, out[0].Type, int64(out[0].Schema), string(out[0].Data), string(m))
	} else {
		var ids, types, data, meta []string
		var schemas []int64
		for _, r := range out {
			m, err := json.Marshal(r.Metadata)
			if err != nil {
				return "", nil, fmt.Errorf("encode the metadata: %w", err)
			}
			ids, types, schemas, data, meta = append(ids, r.ID), append(types, r.Type), append(schemas, int64(r.Schema)),
				append(data, string(r.Data)), append(meta, string(m))
		}
		args = append(args, ids, types, schemas, data, meta)
	}
	switch expected {
	case eventstore.NoStream:
		return moves.first, args, nil
	case eventstore.AnyVersion:
		return moves.any, args, nil
	}
	return moves.exact, append(args, expected), nil
}

// moves are the statements that append on PostgreSQL, by what is expected of the stream.
type moves struct{ first, any, exact string }

func newMoves(prefix string, many bool) moves {
	events := `moved.version, pg_current_xact_id(), $4, $5, $6::bigint, $7::text::json, $8::text::json, $3 FROM moved`
	if many {
		events = `moved.version - $2 + e.n, pg_current_xact_id(), e.id, e.type, e.schema, e.data::json, e.metadata::json, $3
			FROM moved, unnest($4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[]) WITH ORDINALITY AS e (id, type,
			schema, data, metadata, n)
			ORDER BY e.n`
	}
	whole := func(move string) string {
		return strings.ReplaceAll(`WITH moved AS (`+move+`)
			INSERT INTO sillar_events (stream, version, xid, id, type, schema, data, metadata, recorded_at)
			SELECT $1, `+events+` RETURNING version, position`, "sillar_", prefix)
	}
	return moves{
		first: whole(`INSERT INTO sillar_streams (stream, version, last_xid) VALUES ($1, $2, pg_current_xact_id())
			ON CONFLICT DO NOTHING RETURNING version`),
		any: whole(`INSERT INTO sillar_streams AS s (stream, version, last_xid) VALUES ($1, $2, pg_current_xact_id())
			ON CONFLICT (stream) DO UPDATE SET version = s.version + $2, last_xid = pg_current_xact_id()
			WHERE s.last_xid <= pg_current_xact_id() AND s.version < 9223372036854775807 RETURNING version`),
		exact: whole(`UPDATE sillar_streams SET version = version + $2, last_xid = pg_current_xact_id()
			WHERE stream = $1 AND version = $9 AND last_xid <= pg_current_xact_id() RETURNING version`),
	}
}
