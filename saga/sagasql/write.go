package sagasql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/groupcommit"
	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
)

// A group of writes is one statement on PostgreSQL, a transaction of several on SQLite, where a statement is a call and
// no round trip. A write whose row is not as expected is left out and gets errMissed; the others are made.

// errMissed says that a write found another row than it expected.
var errMissed = errors.New("sagasql: the row is not as expected")

// insertAll makes rows, in one commit, and those of search attributes.
func (s *Store) insertAll(ctx context.Context, list []saga.Record) []error {
	if !slices.ContainsFunc(list, func(r saga.Record) bool { return len(r.Attributes()) > 0 }) {
		return s.insertRows(ctx, list)
	}
	var errs []error
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		errs = s.insertRows(ctx, list)
		for i, r := range list {
			if errs[i] != nil && !errors.Is(errs[i], errMissed) {
				return errs[i]
			}
			for name, value := range r.Attributes() {
				if errs[i] != nil {
					break // the id is taken
				}
				if _, err := s.querier(ctx).Exec(ctx,
					s.sql("INSERT INTO sillar_saga_attributes (name, value, created_at, saga_id)"+
						" SELECT $1, $2, created_at, id FROM sillar_sagas WHERE id = $3"), name, value, r.ID); err != nil {
					return err
				}
			}
		}
		return nil
	})
	switch {
	case err == nil:
		return errs
	case len(list) == 1 || s.InTx(ctx) || !refused(err):
		if refused(err) && !errors.Is(err, saga.ErrUnstorable) {
			err = fmt.Errorf("%w: %w", saga.ErrUnstorable, err)
		}
		return groupcommit.Same(err, len(list))
	}
	errs = nil
	for i := range list { // one of them is refused: the others must not fail with it
		errs = append(errs, s.insertAll(ctx, list[i:i+1])...)
	}
	return errs
}

// insertRows makes the rows of sillar_sagas.
func (s *Store) insertRows(ctx context.Context, list []saga.Record) []error {
	const fields = 17
	rows := make([][]any, len(list))
	for i, r := range list {
		e, err := encode(r)
		if err != nil {
			return groupcommit.Same(err, len(list))
		}
		rows[i] = []any{
			r.ID,
			r.Name,
			r.Version,
			r.Shape,
			string(r.Status),
			r.Cursor,
			string(r.State),
			e.steps,
			r.FailedStep,
			r.Cause,
			e.headers,
			e.audit,
			r.Fence,
			r.Owner,
			time.Until(r.WakeAt).Microseconds(),
			e.signals,
			r.SignalSeq,
		}
	}
	one := func(at int) string {
		m := marks(at, fields)
		return "(" + strings.Join(
			m[:12],
			", ",
		) + ", 1, " + m[12] + ", " + m[13] + ", @now + " + m[14] + ", " + m[15] + ", " + m[16] + ", @now, @now)"
	}
	return s.each(ctx, list, rows, func(rows [][]any) (string, []any) {
		values := make([]string, len(rows))
		for i := range values {
			values[i] = one(i * fields)
		}
		return s.returning("", "INSERT INTO sillar_sagas (@columns) VALUES "+strings.Join(values, ", ")+
				" ON CONFLICT (id) DO NOTHING"), slices.Concat(
				rows...)
	})
}

// saved are the columns of a save, as PostgreSQL has them: what is expected of the row, and what it gets.
var (
	saved = []string{
		"id",
		"fence",
		"revision",
		"signal_seq",
		"version",
		"shape",
		"status",
		"position",
		"state",
		"steps",
		"failed_step",
		"cause",
		"audit",
		"owner",
		"wait",
	}
	savedTypes = []string{
		"text",
		"bigint",
		"bigint",
		"bigint",
		"int",
		"text",
		"text",
		"int",
		"text",
		"text",
		"text",
		"text",
		"text",
		"text",
		"bigint",
	}
)

// saveAll changes rows that have the fence, the revision and the signals that are expected.
func (s *Store) saveAll(ctx context.Context, list []saga.Record) []error {
	rows := make([][]any, len(list))
	for i, r := range list {
		e, err := encode(r)
		if err != nil {
			return groupcommit.Same(err, len(list))
		}
		rows[i] = []any{
			r.ID,
			r.Fence,
			r.Revision,
			r.SignalSeq,
			r.Version,
			r.Shape,
			string(r.Status),
			r.Cursor,
			string(r.State),
			e.steps,
			r.FailedStep,
			r.Cause,
			e.audit,
			r.Owner,
			wait(r),
		}
	}
	return s.each(ctx, list, rows, func(rows [][]any) (string, []any) {
		from, args := source(rows)
		query := s.returning(
			"w ("+strings.Join(saved, ", ")+") AS ("+from+")",
			`UPDATE sillar_sagas SET version = w.version, shape = w.shape,
				status = w.status, position = w.position, state = w.state, steps = w.steps,
				failed_step = w.failed_step, cause = w.cause, audit = w.audit,
				owner = w.owner, revision = sillar_sagas.revision + 1, updated_at = @now,
				wake_at = CASE WHEN w.wait IS NULL THEN sillar_sagas.wake_at ELSE @now + w.wait END
			FROM w WHERE sillar_sagas.id = w.id AND sillar_sagas.fence = w.fence AND sillar_sagas.revision = w.revision
				AND sillar_sagas.signal_seq = w.signal_seq`,
		)
		if len(rows) > 1 { // a join, that is best made by reading the table as long as that is small
			query = s.plan.SQL(query)
		}
		return query, args
	})
}

// wait returns how many microseconds from now, by this node's clock, a saga is due. The statement adds them to the
// database's clock, so that a difference of the two delays nothing. While a saga has an owner it is not due and nil is
// returned: an update that leaves all indexed columns as they are is cheaper on PostgreSQL. A saga that has ended is
// marked with the time of its end.
func wait(r saga.Record) any {
	switch {
	case r.Status.Ended():
		return int64(0)
	case r.Owner != "":
		return nil
	}
	return time.Until(r.WakeAt).Microseconds()
}

// source returns the rows of a save as a query and its arguments: several, which only PostgreSQL gets at once, as
// arrays.
func source(rows [][]any) (query string, args []any) {
	m := marks(0, len(saved))
	if len(rows) == 1 {
		for i := range m {
			m[i] = "CAST(" + m[i] + " AS " + savedTypes[i] + ")"
		}
		return "VALUES (" + strings.Join(m, ", ") + ")", rows[0]
	}
	for i := range m {
		m[i] += "::" + savedTypes[i] + "[]"
		column := make([]any, len(rows))
		for k, row := range rows {
			column[k] = row[i]
		}
		args = append(args, column)
	}
	return "SELECT * FROM unnest(" + strings.Join(m, ", ") + ")", args
}

// refused reports whether PostgreSQL can never hold what it was given: data exceptions and exceeded limits.
func refused(err error) bool {
	var e interface{ SQLState() string }
	return errors.As(err, &e) && (strings.HasPrefix(e.SQLState(), "22") || strings.HasPrefix(e.SQLState(), "54"))
}

func marks(from, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("$%d", from+i+1)
	}
	return out
}

// each makes the writes in one commit. statement makes those of rows, and returns the ids of those that were made. When
// a batch has several writes to one saga, the first is made: the others expect a revision that has passed.
func (s *Store) each(
	ctx context.Context,
	list []saga.Record,
	all [][]any,
	statement func(rows [][]any) (string, []any),
) []error {
	done, first := map[string]bool{}, map[string]int{}
	var rows [][]any
	for i, r := range list {
		if _, again := first[r.ID]; !again {
			first[r.ID] = i
			rows = append(rows, all[i])
		}
	}
	run := func(ctx context.Context, rows [][]any) error {
		query, args := statement(rows)
		found, err := s.querier(ctx).Query(ctx, s.sql(query), args...)
		if err != nil {
			return err
		}
		for found.Next() {
			var id string
			if err := found.Scan(&id); err != nil {
				_ = found.Close() // the scan's error says more
				return err
			}
			done[id] = true
		}
		return errors.Join(found.Err(), found.Close())
	}
	var err error
	if s.db.Dialect() == sqldb.PostgreSQL || len(rows) == 1 && !s.history {
		err = run(ctx, rows)
	} else {
		err = s.db.InTx(ctx, func(ctx context.Context) error {
			clear(done)
			for i := range rows {
				if err := run(ctx, rows[i:i+1]); err != nil {
					return err
				}
			}
			if len(done) == 0 {
				return nil
			}
			ids := make([]any, 0, len(done))
			for id := range done {
				ids = append(ids, id)
			}
			return s.writeHistory(ctx, ids...)
		})
	}
	if err != nil && refused(err) {
		err = fmt.Errorf("%w: %w", saga.ErrUnstorable, err)
		if len(list) > 1 && !s.InTx(ctx) { // one of them is refused: the others must not fail with it
			errs := make([]error, 0, len(list))
			for i := range list {
				errs = append(errs, s.each(ctx, list[i:i+1], all[i:i+1], statement)...)
			}
			return errs
		}
	}
	errs := groupcommit.Same(err, len(list))
	for i, r := range list {
		if err == nil && (!done[r.ID] || first[r.ID] != i) {
			errs[i] = errMissed
		}
	}
	return errs
}
