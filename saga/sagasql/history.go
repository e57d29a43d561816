package sagasql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// Change is a state that a saga has been in: see Config.History.
type Change struct {
	// Revision counts the writes of the saga, Fence its owners: a row with a new Fence is a claim.
	Revision, Fence int64
	Owner           string
	Status          saga.Status
	// Cursor is the step that ran then, or that compensation had come to.
	Cursor            int
	Steps             []saga.StepState
	FailedStep, Cause string
	// At is when, by the database's clock, in UTC.
	At time.Time
}

const (
	historyColumns = "saga_id, revision, fence, owner, status, position, steps, failed_step, cause, at"
	historyOf      = `sillar_sagas.id, sillar_sagas.revision, sillar_sagas.fence, sillar_sagas.owner,
		sillar_sagas.status, sillar_sagas.position,
		sillar_sagas.steps, sillar_sagas.failed_step, sillar_sagas.cause, @now`
)

// returning completes a write to sillar_sagas so that it returns the ids of what it wrote. On PostgreSQL the history is
// written by the same statement.
func (s *Store) returning(with, write string) string {
	if !s.history || s.db.Dialect() != sqldb.PostgreSQL {
		if with != "" {
			with = "WITH " + with + " "
		}
		return with + write + " RETURNING sillar_sagas.id"
	}
	if with != "" {
		with += ", "
	}
	return "WITH " + with + "written AS (" + write + " RETURNING " + historyOf + ") INSERT INTO sillar_saga_history (" +
		historyColumns +
		") SELECT * FROM written RETURNING saga_id"
}

// writeHistory writes the history where returning has not. ctx carries the transaction of the write.
func (s *Store) writeHistory(ctx context.Context, ids ...any) error {
	if !s.history || s.db.Dialect() == sqldb.PostgreSQL {
		return nil
	}
	_, err := s.querier(ctx).Exec(ctx, s.sql("INSERT INTO sillar_saga_history ("+historyColumns+") SELECT "+historyOf+
		" FROM sillar_sagas WHERE id IN ("+strings.Join(marks(0, len(ids)), ", ")+")"), ids...)
	return err
}

// History returns the states that a saga has been in while Config.History was set, the first one first.
func (s *Store) History(ctx context.Context, id string) (list []Change, err error) {
	if !s.storable(id) {
		return nil, nil
	}
	rows, err := s.querier(ctx).
		Query(ctx, s.sql(`SELECT revision, fence, owner, status, position, steps, failed_step, cause, at
		FROM sillar_saga_history WHERE saga_id = $1 ORDER BY revision`), id)
	if err != nil {
		return nil, fmt.Errorf("sagasql: history of %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var (
			c             Change
			status, steps string
			at            int64
		)
		if err := rows.Scan(&c.Revision, &c.Fence, &c.Owner, &status, &c.Cursor, &steps, &c.FailedStep, &c.Cause,
			&at); err != nil {
			return nil, fmt.Errorf("sagasql: history of %s: %w", id, err)
		}
		if err := json.Unmarshal([]byte(steps), &c.Steps); err != nil {
			return nil, fmt.Errorf("sagasql: history of %s: %w", id, err)
		}
		c.Status, c.At = saga.Status(status), time.UnixMicro(at).UTC()
		list = append(list, c)
	}
	return list, rows.Err()
}
