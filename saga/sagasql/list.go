package sagasql

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

var statuses = []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck}

// List implements saga.Store. A saga that does not decode is listed with the reason as its Cause and without its steps.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Record, error) {
	f, ok := s.possible(f)
	if !ok {
		return nil, nil
	}
	f.Limit = limit(f, 100)
	query, args := s.selectSQL(f, "@qualified")
	rows, err := s.read(ctx, query, args...)
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

// Count implements saga.Store.
func (s *Store) Count(ctx context.Context, f saga.Filter) (n int, err error) {
	f, ok := s.possible(f)
	if !ok {
		return 0, nil
	}
	f.Limit = limit(f, 10_000)
	query, args := s.selectSQL(f, "s.created_at, s.id")
	err = s.querier(ctx).QueryRow(ctx, "SELECT count(*) FROM ("+query+") counted", args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("sagasql: count: %w", err)
	}
	return n, nil
}

func limit(f saga.Filter, otherwise int) int {
	if f.Limit <= 0 {
		return otherwise
	}
	return f.Limit
}

// selectSQL returns the statement that reads columns of the sagas that f selects, in the order of their start. Each
// status is looked up by itself, so that the order of the index bounds what is read. Where an attribute or ids select,
// what these select bounds it.
func (s *Store) selectSQL(f saga.Filter, columns string) (query string, args []any) {
	since, until := int64(math.MinInt64), int64(math.MaxInt64)
	if !f.Since.IsZero() {
		since = f.Since.UnixMicro()
	}
	if !f.Until.IsZero() {
		until = f.Until.UnixMicro()
	}
	args = []any{sqldb.Replan, since, f.After, until, f.Limit}
	mark := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args)-1)
	}
	list := func(values []string) string {
		var m []string
		for _, v := range values {
			m = append(m, mark(v))
		}
		return " IN (" + strings.Join(m, ", ") + ")"
	}
	of := slices.Compact(slices.Sorted(slices.Values(f.Statuses)))
	name := ""
	if f.Name != "" {
		name = " AND s.name = " + mark(f.Name)
	}
	from, where, key := "sillar_sagas s", name, "s.created_at, s.id"
	switch {
	case f.Attribute != "":
		from = "sillar_saga_attributes a JOIN sillar_sagas s ON s.id = a.saga_id"
		where += " AND a.name = " + mark(f.Attribute) + " AND a.value = " + mark(f.Value)
		key = "a.created_at, a.saga_id"
	case len(f.IDs) == 0:
		if len(of) == 0 {
			of = statuses
		}
		where += " AND s.version > 0"
		if f.Name != "" {
			where = name + " AND s.id <> ''"
		}
	}
	if len(f.IDs) > 0 {
		where += " AND s.id" + list(f.IDs)
	}
	arm := "SELECT * FROM (SELECT " + columns + " FROM " + from + " WHERE (" + key + ") > ($1, $2) AND " +
		strings.Split(key, ",")[0] + " < $3" + where + "%s ORDER BY " + key + " LIMIT $4) a%d"
	if f.Attribute != "" || len(f.IDs) > 0 {
		where := ""
		if len(of) > 0 {
			var in []string
			for _, status := range of {
				in = append(in, string(status))
			}
			where = " AND s.status" + list(in)
		}
		return s.sql(fmt.Sprintf(arm, where, 0) + " ORDER BY created_at, id LIMIT $4"), args
	}
	var arms []string
	for i, status := range of {
		arms = append(arms, fmt.Sprintf(arm, " AND s.status = "+mark(string(status)), i))
	}
	return s.sql(strings.Join(arms, " UNION ALL ") + " ORDER BY created_at, id LIMIT $4"), args
}

// Shapes implements saga.Store. It reads one saga for each shape.
func (s *Store) Shapes(ctx context.Context, k saga.Kind) (shapes []string, err error) {
	if !s.storable(k.Name) {
		return nil, nil
	}
	next := "(SELECT shape FROM sillar_sagas WHERE shape <> '' AND " + unfinished +
		" AND name = $1 AND version = $2%s ORDER BY shape LIMIT 1)"
	rows, err := s.querier(ctx).
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
