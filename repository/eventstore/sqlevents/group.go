package sqlevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sillar-go/sillar/repository/eventstore"
)

// appending is an append that may share a statement with others.
type appending struct {
	stream   string
	expected int64
	out      []eventstore.Recorded
}

// alone appends outside any transaction.
func (s *Store) alone(ctx context.Context, stream string, expected int64, out []eventstore.Recorded) error {
	a := &appending{stream, expected, out}
	if expected == eventstore.Any || len(out) > maxShared {
		return s.single(ctx, a)
	}
	// The group may outlive this call, and so works on a copy.
	a.out = append([]eventstore.Recorded(nil), out...)
	if err := s.group.Do(ctx, a); err != nil {
		return err
	}
	copy(out, a.out)
	return nil
}

// maxShared is the largest append that shares a statement.
const maxShared = 64

// single makes one append with a statement of its own.
func (s *Store) single(ctx context.Context, a *appending) (err error) {
	for range 10 {
		if err = s.insertPostgres(ctx, a.stream, a.expected, a.out); !errors.Is(err, errOvertaken) {
			break
		}
	}
	if err == nil {
		s.wake()
	}
	return err
}

// appendAll makes appends to streams of their own in one statement, and the others after it. An append that finds
// another version is looked at by itself, to tell why; so is each of them where one makes the server refuse the statement.
func (s *Store) appendAll(ctx context.Context, list []*appending) []error {
	errs := make([]error, len(list))
	places, taken := make([]int, 0, len(list)), map[string]bool{}
	for i, a := range list {
		if !taken[a.stream] {
			taken[a.stream] = true
			places = append(places, i)
		}
	}
	rest := make([]bool, len(list)) // to be made by themselves
	for i := range rest {
		rest[i] = true
	}
	if len(places) > 1 {
		done, err := s.together(ctx, list, places)
		var refused *pgconn.PgError
		switch {
		case err == nil:
			for _, i := range places {
				rest[i] = !done[i]
			}
			s.wake()
		case !errors.As(err, &refused): // whether it was committed is not known
			for _, i := range places {
				errs[i], rest[i] = err, false
			}
		}
	}
	for i, a := range list {
		if rest[i] {
			errs[i] = s.single(ctx, a)
		}
	}
	return errs
}

// together appends to the streams of list[i], i in places, and reports which it has appended to.
func (s *Store) together(ctx context.Context, list []*appending, places []int) (done map[int]bool, err error) {
	var (
		streams                []string
		expected, counts, at   []int64
		ofStream, schemas, ns  []int64
		ids, types, data, meta []string
	)
	for k, i := range places {
		a := list[i]
		streams, expected, counts, at = append(streams, a.stream), append(expected, a.expected), append(counts, int64(len(a.out))), append(at, a.out[0].Time.UnixMicro())
		for n, r := range a.out {
			m, err := json.Marshal(r.Metadata)
			if err != nil {
				return nil, fmt.Errorf("encode the metadata: %w", err)
			}
			ofStream, ns, schemas = append(ofStream, int64(k)), append(ns, int64(n)), append(schemas, int64(r.Schema))
			ids, types, data, meta = append(ids, r.ID), append(types, r.Type), append(data, string(r.Data)), append(meta, string(m))
		}
	}
	rows, err := s.db.Querier(ctx).Query(ctx, s.sql(sharedSQL), streams, expected, counts, at, ofStream, ns, schemas, ids, types, data, meta)
	if err != nil {
		return nil, err
	}
	done = map[int]bool{}
	byName := map[string]int{}
	for _, i := range places {
		byName[list[i].stream] = i
	}
	for rows.Next() {
		var stream string
		var version, position int64
		if err := rows.Scan(&stream, &version, &position); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		i := byName[stream]
		a := list[i]
		n := version - a.expected - 1
		if n < 0 || n >= int64(len(a.out)) {
			return nil, errors.Join(fmt.Errorf("version %d of %s came back from an append after %d", version, stream, a.expected), rows.Close())
		}
		a.out[n].Version, a.out[n].Position = version, position
		done[i] = true
	}
	return done, rows.Close()
}

// sharedSQL locks the streams in the order of their names, so that two of these statements do not wait for each other,
// moves those that are at the version that is expected, and adds the events.
const sharedSQL = `WITH a AS (
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS a (stream, expected, count, at, k)
	), locked AS MATERIALIZED (
		SELECT s.stream FROM sillar_streams s JOIN a ON a.stream = s.stream ORDER BY s.stream FOR UPDATE OF s
	), moved AS (
		UPDATE sillar_streams s SET version = s.version + a.count, last_xid = pg_current_xact_id() FROM a, locked
		WHERE locked.stream = s.stream AND a.stream = s.stream AND a.expected = s.version AND s.last_xid <= pg_current_xact_id()
		RETURNING s.stream, a.k, a.expected, a.at
	), made AS (
		INSERT INTO sillar_streams (stream, version, last_xid)
		SELECT a.stream, a.count, pg_current_xact_id() FROM a WHERE a.expected = 0 ORDER BY a.stream
		ON CONFLICT DO NOTHING RETURNING stream
	), both AS (
		SELECT stream, k, expected, at FROM moved UNION ALL SELECT a.stream, a.k, a.expected, a.at FROM made JOIN a ON a.stream = made.stream
	)
	INSERT INTO sillar_events (stream, version, xid, id, type, schema, data, metadata, recorded_at)
	SELECT m.stream, m.expected + e.n + 1, pg_current_xact_id(), e.id, e.type, e.schema, e.data::json, e.metadata::json, m.at
	FROM both m JOIN unnest($5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[]) AS e (k, n, schema, id, type, data, metadata)
		ON e.k = m.k - 1
	ORDER BY e.k, e.n RETURNING stream, version, position`
