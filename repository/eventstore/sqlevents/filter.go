package sqlevents

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// window is how many events ReadFiltered looks at: a filter that selects few of many must not read all of them at once,
// and needs no index of its own, which every append would pay for.
const window = 5000

// ReadFiltered implements eventstore.Store.
func (s *Store) ReadFiltered(ctx context.Context, f eventstore.Filter, from string,
	limit int) ([]eventstore.Recorded, string, error) {
	if f.All() || limit <= 0 {
		return s.Read(ctx, from, limit)
	}
	c, err := s.parse(from)
	if err == nil {
		err = s.verify(ctx)
	}
	if err != nil {
		return nil, "", fmt.Errorf("sqlevents: read: %w", err)
	}
	where, args := s.after(c)
	end, err := s.windowEnd(ctx, where, args)
	if errors.Is(err, sqldb.ErrNoRows) {
		if err = s.foreign(ctx, c); err == nil {
			return nil, from, nil
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("sqlevents: read: %w", err)
	}
	// What lies between the cursor and the end of the window is complete, whatever is committed meanwhile.
	order := "position"
	if s.db.Dialect() == sqldb.PostgreSQL {
		order = "xid, position"
		args = append(args, strconv.FormatUint(end.xid, 10), int64(end.position))
		where += " AND (xid, position) <= ($3::text::xid8, $4::bigint)"
	} else {
		args = append(args, int64(end.position))
		where += " AND position <= $2"
	}
	selected, args := s.selected(f, args)
	args = append(args, limit)
	query := s.sql("SELECT " + s.columns() + " FROM sillar_events WHERE " + where + selected + " ORDER BY " + order +
		fmt.Sprintf(" LIMIT $%d", len(args)))
	events, xid, err := s.read(ctx, query, args...)
	if err != nil {
		return nil, "", fmt.Errorf("sqlevents: read: %w", err)
	}
	if len(events) < limit {
		return events, s.text(strconv.FormatUint(end.xid, 10), int64(end.position)), nil
	}
	return events, s.text(xid, events[len(events)-1].Position), nil
}

// text is the text of a cursor.
func (s *Store) text(xid string, position int64) string {
	if s.db.Dialect() == sqldb.PostgreSQL {
		return xid + "-" + strconv.FormatInt(position, 10)
	}
	return strconv.FormatInt(position, 10)
}

// windowEnd returns the place of the last event of the window behind a cursor.
func (s *Store) windowEnd(ctx context.Context, where string, args []any) (end cursor, err error) {
	query := "SELECT '0', position FROM (SELECT position FROM sillar_events WHERE %s ORDER BY position LIMIT %d) AS w " +
		"ORDER BY position DESC LIMIT 1"
	if s.db.Dialect() == sqldb.PostgreSQL {
		query = "SELECT w.xid::text, position FROM (SELECT xid, position FROM sillar_events WHERE %s " +
			"ORDER BY xid, position LIMIT %d) AS w ORDER BY w.xid DESC, position DESC LIMIT 1"
	}
	var xid string
	var position int64
	if err := s.db.Querier(ctx).QueryRow(ctx, s.sql(fmt.Sprintf(query, where, window)), args...).
		Scan(&xid, &position); err != nil {
		return end, err
	}
	end.position = uint64(position)
	end.xid, err = strconv.ParseUint(xid, 10, 64)
	return end, err
}

// selected is the condition of a filter, and args with its arguments.
func (s *Store) selected(f eventstore.Filter, args []any) (string, []any) {
	arg := func(v string) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	unknown := func(name string) bool { return !eventstore.Storable(name) } // PostgreSQL would not be asked for it
	conditions := ""
	if len(f.Categories) > 0 {
		tests := []string{"1 = 0"}
		for _, c := range slices.DeleteFunc(slices.Clone(f.Categories), unknown) {
			if s.db.Dialect() == sqldb.PostgreSQL {
				tests = append(tests, "starts_with(stream, "+arg(c+"-")+")")
			} else {
				begin := arg(c + "-")
				tests = append(tests, "substr(stream, 1, length("+begin+")) = "+begin)
			}
		}
		conditions += " AND (" + strings.Join(tests, " OR ") + ")"
	}
	if len(f.Types) > 0 {
		types := []string{arg(eventstore.Deleted)}
		for _, t := range slices.DeleteFunc(slices.Clone(f.Types), unknown) {
			types = append(types, arg(t))
		}
		conditions += " AND type IN (" + strings.Join(types, ", ") + ")"
	}
	return conditions, args
}
