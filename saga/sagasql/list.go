package sagasql

import (
	"context"
	"fmt"
	"strings"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

var statuses = []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck}

// List implements saga.Store. A saga that does not decode is listed with the reason as its Cause and without its steps.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Record, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	args := []any{sqldb.Replan, f.After, limit}
	arm := "SELECT * FROM (SELECT @columns FROM sillar_sagas WHERE id > $1%s ORDER BY id LIMIT $2) a%d"
	var arms []string
	switch of := f.Statuses; {
	case f.Name == "" && len(of) == 0:
		arms = []string{fmt.Sprintf(arm, "", 0)}
	default: // each status by itself, so that the order of the index bounds what is read
		if len(of) == 0 {
			of = statuses
		}
		where := " AND version > 0"
		if f.Name != "" {
			args = append(args, f.Name)
			where = " AND id <> '' AND name = $3"
		}
		seen := map[saga.Status]bool{}
		for _, status := range of {
			if seen[status] {
				continue
			}
			seen[status] = true
			args = append(args, string(status))
			arms = append(arms, fmt.Sprintf(arm, fmt.Sprintf("%s AND status = $%d", where, len(args)-1), len(arms)))
		}
	}
	rows, err := s.read(ctx, s.sql(strings.Join(arms, " UNION ALL ")+" ORDER BY id LIMIT $2"), args...)
	if err != nil {
		return nil, fmt.Errorf("sagasql: list: %w", err)
	}
	list := make([]saga.Record, 0, len(rows))
	for _, row := range rows {
		if row.err != nil {
			row.record.Cause = undecodable(row.err)
			row.record.Steps = nil
		}
		list = append(list, row.record)
	}
	return list, nil
}

// Shapes implements saga.Store. It reads one saga for each shape.
func (s *Store) Shapes(ctx context.Context, k saga.Kind) (shapes []string, err error) {
	next := "(SELECT shape FROM sillar_sagas WHERE shape <> '' AND " + unfinished +
		" AND name = $1 AND version = $2%s ORDER BY shape LIMIT 1)"
	rows, err := s.db.Querier(ctx).
		Query(ctx, s.sql("WITH RECURSIVE shapes (shape) AS (SELECT * FROM "+fmt.Sprintf(next, "")+" AS f"+
			" UNION ALL SELECT "+fmt.Sprintf(next, " AND shape > o.shape")+" FROM shapes o WHERE o.shape IS NOT NULL)"+
			" SELECT shape FROM shapes WHERE shape IS NOT NULL"), sqldb.Replan, k.Name, k.Version)
	if err != nil {
		return nil, fmt.Errorf("sagasql: shapes: %w", err)
	}
	defer closeRows(rows, &err)
	for rows.Next() {
		var shape string
		if err := rows.Scan(&shape); err != nil {
			return nil, fmt.Errorf("sagasql: shapes: %w", err)
		}
		shapes = append(shapes, shape)
	}
	return shapes, rows.Err()
}
