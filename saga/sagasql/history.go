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
	historyOf      = `sillar_sagas.id, sillar_sagas.revision, sillar_sagas.fence, sillar_sagas.owner, sillar_sagas.status, sillar_sagas.position,
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
	return "WITH " + with + "written AS (" + write + " RETURNING " + historyOf + ") INSERT INTO sillar_saga_history (" + historyColumns +
		") SELECT * FROM written RETURNING saga_id"
}

// writeHistory writes the history where returning has not. ctx carries the transaction of the write.
func (s *Store) writeHistory(ctx context.Context, ids ...any) error {
	if !s.history || s.db.Dialect() == sqldb.PostgreSQL {
		return nil
	}
	_, err := s.db.Querier(ctx).Exec(ctx, s.sql("INSERT INTO sillar_saga_history ("+historyColumns+") SELECT "+historyOf+
		" FROM sillar_sagas WHERE id IN ("+strings.Join(marks(0, len(ids)), ", ")+")"), ids...)
	return err
}

// History returns the states that a saga has been in while Config.History was set, the first one first.
func (s *Store) History(ctx context.Context, id string) (list []Change, err error) {
	rows, err := s.db.Querier(ctx).
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
		if err := rows.Scan(&c.Revision, &c.Fence, &c.Owner, &status, &c.Cursor, &steps, &c.FailedStep, &c.Cause, &at); err != nil {
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

// pruneAtOnce is how many sagas Prune deletes in a transaction: few enough not to hold others up.
const pruneAtOnce = 500

// Prune deletes sagas that were completed or compensated before a time, with their history, and returns how many. It
// can be stopped and called again. A saga whose id is used once more after that is a new one: keep ids at least as long
// as callers may repeat a start. What is stuck stays.
func (s *Store) Prune(ctx context.Context, before time.Time) (pruned int64, err error) {
	for {
		var n int
		err := s.db.InTx(ctx, func(ctx context.Context) error {
			rows, err := s.db.Querier(ctx).
				Query(ctx, s.sql(`SELECT id FROM sillar_sagas WHERE status IN ('COMPLETED', 'COMPENSATED')
				AND wake_at < $1 ORDER BY wake_at, id LIMIT $2`), sqldb.Replan, before.UnixMicro(), pruneAtOnce)
			if err != nil {
				return err
			}
			ids := []any{sqldb.Replan}
			for rows.Next() {
				var id string
				if err := rows.Scan(&id); err != nil {
					return errors.Join(err, rows.Close())
				}
				ids = append(ids, id)
			}
			if err := rows.Close(); err != nil {
				return err
			}
			if n = len(ids) - 1; n == 0 {
				return nil
			}
			in := " IN (" + strings.Join(marks(0, n), ", ") + ")"
			for _, query := range []string{"DELETE FROM sillar_saga_history WHERE saga_id" + in, "DELETE FROM sillar_sagas WHERE id" + in} {
				if _, err := s.db.Querier(ctx).Exec(ctx, s.sql(query), ids...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return pruned, fmt.Errorf("sagasql: prune: %w", err)
		}
		if pruned += int64(n); n < pruneAtOnce {
			return pruned, nil
		}
	}
}
