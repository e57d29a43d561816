package sqlevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sillar-go/sillar/internal/groupcommit"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// appending is an append that shares a statement with others.
type appending struct {
	stream   string
	expected int64
	out      []eventstore.Recorded
}

// maxShared is the largest append that shares a statement.
const maxShared = 64

// errAlone says that an append is to be made by itself.
var errAlone = errors.New("sqlevents: not in this company")

// autocommit appends outside any transaction. Appends to streams that are there share statements, in which nothing
// waits for other transactions: what would have to, and what is refused, is appended on its own.
func (s *Store) autocommit(ctx context.Context, stream string, expected int64, out []eventstore.Recorded) (err error) {
	if expected > 0 && len(out) <= maxShared {
		a := &appending{stream, expected, slices.Clone(out)} // a copy, because the statement may outlive this call
		if err = s.group.Do(ctx, a); err == nil {
			copy(out, a.out)
			return nil
		}
		if !errors.Is(err, errAlone) {
			return err
		}
	}
	if expected == eventstore.AnyVersion && len(out) <= maxShared {
		return s.appendAny(ctx, stream, out)
	}
	return s.appendAlone(ctx, stream, expected, out)
}

// appendAlone makes an append in a statement, or a transaction, of its own.
func (s *Store) appendAlone(ctx context.Context, stream string, expected int64, out []eventstore.Recorded) (err error) {
	for range 3 {
		if err = s.insertPostgres(ctx, stream, expected, out); !errors.Is(err, ErrOvertaken) {
			break
		}
	}
	if errors.Is(err, ErrOvertaken) {
		err = s.inTurn(ctx, stream, expected, out)
	}
	if err == nil {
		s.wake()
	}
	return err
}

// inTurn appends in a transaction that has its id only when it has the stream, and so cannot be overtaken.
func (s *Store) inTurn(ctx context.Context, stream string, expected int64, out []eventstore.Recorded) error {
	return s.db.InTx(ctx, func(ctx context.Context) error { return s.insertLocked(ctx, stream, expected, out) })
}

// appendAll makes appends in one statement, one a stream. The others get errAlone.
func (s *Store) appendAll(ctx context.Context, list []*appending) []error {
	first := map[string]*appending{}
	var now []*appending
	for _, a := range list {
		if first[a.stream] == nil {
			first[a.stream] = a
			now = append(now, a)
		}
	}
	done, err := s.together(ctx, now)
	if state := sqldb.SQLState(err); len(state) == 5 && slices.Contains([]string{"22", "23", "40"}, state[:2]) {
		err = errAlone // data, constraints, rolled back: one of them is to blame
	}
	errs := groupcommit.Same(err, len(list))
	for i, a := range list {
		if err == nil && (!done[a.stream] || first[a.stream] != a) || err != nil && first[a.stream] != a {
			errs[i] = errAlone
		}
	}
	if len(done) > 0 {
		s.wake()
	}
	return errs
}

// together appends to streams, and reports to which: those that have the expected version and are
// not locked.
func (s *Store) together(ctx context.Context, list []*appending) (done map[string]bool, err error) {
	var (
		streams                []string
		expected, counts, at   []int64
		of, ns, schemas        []int64
		ids, types, data, meta []string
	)
	by := map[string]*appending{}
	for k, a := range list {
		by[a.stream] = a
		streams, expected, counts, at = append(streams, a.stream), append(expected, a.expected),
			append(counts, int64(len(a.out))), append(at, a.out[0].Time.UnixMicro())
		for n, r := range a.out {
			m, err := json.Marshal(r.Metadata)
			if err != nil {
				return nil, fmt.Errorf("encode the metadata: %w", err)
			}
			of, ns, schemas = append(of, int64(k+1)), append(ns, int64(n+1)), append(schemas, int64(r.Schema))
			ids, types, data, meta = append(ids, r.ID), append(types, r.Type), append(data, string(r.Data)),
				append(meta, string(m))
		}
	}
	rows, err := s.db.Querier(ctx).Query(ctx, s.plan.SQL(s.sql(sharedSQL)), streams, expected, counts, at, of, ns, schemas,
		ids, types, data, meta)
	if err != nil {
		return nil, err
	}
	done = map[string]bool{}
	for rows.Next() {
		var stream string
		var version, position int64
		if err := rows.Scan(&stream, &version, &position); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		a := by[stream]
		r := &a.out[version-a.expected-1]
		r.Version, r.Position = version, position
		done[stream] = true
	}
	return done, rows.Close()
}

// sharedSQL moves the streams that are at the version that is expected, passes over those that are locked, and adds the
// events. Streams are looked up one by one, and moved by what ON CONFLICT finds, not by a join, which reads all of a
// table that was small when it was planned.
const sharedSQL = `WITH a AS MATERIALIZED (
		SELECT a.* FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
			AS a (stream, expected, count, at, k)
		CROSS JOIN LATERAL (SELECT FROM sillar_streams s WHERE s.stream = a.stream AND s.version = a.expected
		FOR UPDATE SKIP LOCKED) AS free
	), moved AS (
		INSERT INTO sillar_streams AS s (stream, version, last_xid)
			SELECT stream, expected + count, pg_current_xact_id() FROM a
		ON CONFLICT (stream) DO UPDATE SET version = excluded.version, last_xid = excluded.last_xid
		WHERE s.last_xid <= excluded.last_xid
		RETURNING stream
	)
	INSERT INTO sillar_events (stream, version, xid, id, type, schema, data, metadata, recorded_at)
	SELECT a.stream, a.expected + e.n, pg_current_xact_id(), e.id, e.type, e.schema, e.data::json, e.metadata::json, a.at
	FROM moved JOIN a ON a.stream = moved.stream
	JOIN unnest($5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[])
		AS e (k, n, schema, id, type, data, metadata)
		ON e.k = a.k
	ORDER BY e.k, e.n RETURNING stream, version, position`
