package sagasql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// Delete implements saga.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !s.storable(id) {
		return saga.ErrNotFound
	}
	return s.db.InTx(ctx, func(ctx context.Context) error {
		n, err := s.querier(ctx).
			Exec(ctx, s.sql("DELETE FROM sillar_sagas WHERE id = $1 AND status NOT IN ('RUNNING', 'COMPENSATING')"), id)
		if err != nil {
			return fmt.Errorf("sagasql: delete %s: %w", id, err)
		}
		if n == 0 {
			if _, err := s.Get(ctx, id); errors.Is(err, saga.ErrNotFound) {
				return err
			}
			return saga.ErrUnfinished
		}
		return s.deleteDetails(ctx, []any{sqldb.Replan, id})
	})
}

// Prune implements saga.Store.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (pruned int, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context) error {
		pruned = 0
		rows, err := s.querier(ctx).
			Query(ctx, s.sql(`SELECT id FROM sillar_sagas WHERE status IN ('COMPLETED', 'COMPENSATED')
				AND wake_at < $1 ORDER BY wake_at, id LIMIT $2`), sqldb.Replan, before.UnixMicro(), limit)
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
		if err := rows.Close(); err != nil || len(ids) == 1 {
			return err
		}
		pruned = len(ids) - 1
		if _, err := s.querier(ctx).Exec(ctx, s.sql("DELETE FROM sillar_sagas WHERE id"+in(ids)), ids...); err != nil {
			return err
		}
		return s.deleteDetails(ctx, ids)
	})
	if err != nil {
		return 0, fmt.Errorf("sagasql: prune: %w", err)
	}
	return pruned, nil
}

// in returns the condition that a column is one of ids, which are arguments behind sqldb.Replan.
func in(ids []any) string { return " IN (" + strings.Join(marks(0, len(ids)-1), ", ") + ")" }

// deleteDetails deletes the history and the attributes of deleted sagas.
func (s *Store) deleteDetails(ctx context.Context, ids []any) error {
	for _, table := range []string{"sillar_saga_history", "sillar_saga_attributes"} {
		if _, err := s.querier(ctx).Exec(ctx, s.sql("DELETE FROM "+table+" WHERE saga_id"+in(ids)), ids...); err != nil {
			return fmt.Errorf("sagasql: delete from %s: %w", table, err)
		}
	}
	return nil
}
