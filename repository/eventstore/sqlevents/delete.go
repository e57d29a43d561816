package sqlevents

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// deletedVersion is the version of a stream that was deleted. No append expects it, and none is possible behind it.
const deletedVersion = math.MaxInt64

// Delete implements eventstore.Store. A conflict leaves the transaction that ctx carries as it was.
func (s *Store) Delete(ctx context.Context, stream string, expected int64) error {
	if !eventstore.Storable(stream) { // there is none
		return nil
	}
	var stale *repository.ConflictError
	err := s.verify(ctx)
	if err == nil {
		err = s.db.InTx(ctx, func(ctx context.Context) error {
			stale = nil
			err := s.remove(ctx, stream, expected)
			if errors.As(err, &stale) {
				return nil
			}
			return err
		})
	}
	if err == nil && stale != nil {
		err = stale
	}
	if err != nil {
		return fmt.Errorf("sqlevents: delete %s: %w", stream, err)
	}
	return nil
}

// remove deletes a stream in the transaction that ctx carries.
func (s *Store) remove(ctx context.Context, stream string, expected int64) error {
	insert := s.insertSQLite
	if s.db.Dialect() == sqldb.PostgreSQL {
		insert = s.insertPostgres
		if err := s.lock(ctx, stream); err != nil {
			return err
		}
	}
	q := s.db.Querier(ctx)
	var version int64
	err := q.QueryRow(ctx, s.sql("SELECT version FROM sillar_streams WHERE stream = $1"), stream).Scan(&version)
	switch {
	case err != nil && !errors.Is(err, sqldb.ErrNoRows):
		return err
	case version == deletedVersion || version == 0 && expected <= 0:
		return nil
	case expected != eventstore.AnyVersion && expected != version:
		return &repository.ConflictError{ID: stream, Expected: expected, Actual: version}
	}
	last := []eventstore.Recorded{{Event: eventstore.Deletion(id.New()), Stream: stream,
		Time: time.Now().UTC().Truncate(time.Microsecond)}}
	if err := insert(ctx, stream, version, last); err != nil {
		return err
	}
	for _, c := range []struct {
		statement string
		args      []any
	}{
		{"DELETE FROM sillar_events WHERE stream = $1 AND version < $2", []any{stream, last[0].Version}},
		{"DELETE FROM sillar_snapshots WHERE stream = $1", []any{stream}},
		{"UPDATE sillar_streams SET version = $2 WHERE stream = $1", []any{stream, int64(deletedVersion)}},
	} {
		if _, err := q.Exec(ctx, s.sql(c.statement), c.args...); err != nil {
			return err
		}
	}
	s.db.AfterCommit(ctx, s.wake)
	return nil
}
