package sagasql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
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

// write is a change of a row of sillar_sagas, encoded before it waits for a commit: what does not encode fails alone.
type write struct {
	id         string
	attributes map[string]string // of a new saga
	row        []any             // as inserted or saved has its columns
}

// column is one of the columns of a write, with its type on PostgreSQL.
type column struct{ name, kind string }

var (
	inserted = []column{
		{"id", "text"}, {"name", "text"}, {"version", "int"}, {"shape", "text"}, {"status", "text"}, {"position", "int"},
		{"state", "text"}, {"steps", "text"}, {"failed_step", "text"}, {"cause", "text"}, {"headers", "text"},
		{"audit", "text"}, {"fence", "bigint"}, {"owner", "text"}, {"wait", "bigint"}, {"signals", "text"},
		{"signal_seq", "bigint"},
	}
	// saved are what is expected of the row, and what it gets.
	saved = []column{
		{"id", "text"}, {"fence", "bigint"}, {"revision", "bigint"}, {"signal_seq", "bigint"}, {"version", "int"},
		{"shape", "text"}, {"status", "text"}, {"position", "int"}, {"state", "text"}, {"steps", "text"},
		{"failed_step", "text"}, {"cause", "text"}, {"audit", "text"}, {"owner", "text"}, {"wait", "bigint"},
	}
)

// insertion returns the write of a new saga.
func insertion(r saga.Record) (write, error) {
	steps, err := marshal(r, r.Steps)
	if err != nil {
		return write{}, err
	}
	headers, err := marshal(r, r.Headers)
	if err != nil {
		return write{}, err
	}
	audit, err := marshal(r, r.Audit)
	if err != nil {
		return write{}, err
	}
	signals, err := marshalSignals(r)
	if err != nil {
		return write{}, err
	}
	return write{r.ID, r.Attributes(), []any{
		r.ID, r.Name, r.Version, r.Shape, string(r.Status), r.Cursor, string(r.State), steps, r.FailedStep, r.Cause, headers,
		audit, r.Fence, r.Owner, time.Until(r.WakeAt).Microseconds(), signals, r.SignalSeq,
	}}, nil
}

// saving returns the write of a saga that is stored.
func saving(r saga.Record) (write, error) {
	steps, err := marshal(r, r.Steps)
	if err != nil {
		return write{}, err
	}
	audit, err := marshal(r, r.Audit)
	if err != nil {
		return write{}, err
	}
	return write{r.ID, nil, []any{
		r.ID, r.Fence, r.Revision, r.SignalSeq, r.Version, r.Shape, string(r.Status), r.Cursor, string(r.State), steps,
		r.FailedStep, r.Cause, audit, r.Owner, wait(r),
	}}, nil
}

// insertAll makes rows, in one commit, and those of search attributes.
func (s *Store) insertAll(ctx context.Context, list []write) []error {
	if !slices.ContainsFunc(list, func(w write) bool { return len(w.attributes) > 0 }) {
		return s.insertRows(ctx, list)
	}
	var errs []error
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		errs = s.insertRows(ctx, list)
		for i, w := range list {
			if errs[i] != nil && !errors.Is(errs[i], errMissed) {
				return errs[i]
			}
			for name, value := range w.attributes {
				if errs[i] != nil {
					break // the id is taken
				}
				if _, err := s.querier(ctx).Exec(ctx,
					s.sql("INSERT INTO sillar_saga_attributes (name, value, created_at, saga_id)"+
						" SELECT $1, $2, created_at, id FROM sillar_sagas WHERE id = $3"), name, value, w.id); err != nil {
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
func (s *Store) insertRows(ctx context.Context, list []write) []error {
	return s.each(ctx, list, func(list []write) (string, []any) {
		with, args := source(inserted, list)
		return s.returning(with, `INSERT INTO sillar_sagas (@columns) SELECT id, name, version, shape, status, position,
			state, steps, failed_step, cause, headers, audit, 1, fence, owner, @now + wait, signals, signal_seq, @now, @now
			FROM w WHERE true ON CONFLICT (id) DO NOTHING`), args
	})
}

// saveAll changes rows that have the fence, the revision and the signals that are expected.
func (s *Store) saveAll(ctx context.Context, list []write) []error {
	return s.each(ctx, list, func(list []write) (string, []any) {
		with, args := source(saved, list)
		query := s.returning(with,
			`UPDATE sillar_sagas SET version = w.version, shape = w.shape,
				status = w.status, position = w.position, state = w.state, steps = w.steps,
				failed_step = w.failed_step, cause = w.cause, audit = w.audit,
				owner = w.owner, revision = sillar_sagas.revision + 1, updated_at = @now,
				wake_at = CASE WHEN w.wait IS NULL THEN sillar_sagas.wake_at ELSE @now + w.wait END
			FROM w WHERE sillar_sagas.id = w.id AND sillar_sagas.fence = w.fence AND sillar_sagas.revision = w.revision
				AND sillar_sagas.signal_seq = w.signal_seq`,
		)
		if len(list) > 1 { // a join, that is best made by reading the table as long as that is small
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

// source returns the writes as a table w and its arguments: several, which only PostgreSQL gets at once, as arrays.
func source(columns []column, list []write) (with string, args []any) {
	names, marks := make([]string, len(columns)), marks(0, len(columns))
	for i, c := range columns {
		names[i] = c.name
		if len(list) == 1 {
			marks[i] = "CAST(" + marks[i] + " AS " + c.kind + ")"
			continue
		}
		marks[i] += "::" + c.kind + "[]"
		args = append(args, array(c.kind, list, i))
	}
	from := "SELECT * FROM unnest(" + strings.Join(marks, ", ") + ")"
	if len(list) == 1 {
		from, args = "VALUES ("+strings.Join(marks, ", ")+")", list[0].row
	}
	return "w (" + strings.Join(names, ", ") + ") AS (" + from + ")", args
}

// array returns the i-th column of the writes. That of texts has a type that pgx encodes without reflection.
func array(kind string, list []write, i int) any {
	if kind == "text" {
		texts := make([]string, len(list))
		for k, w := range list {
			texts[k], _ = w.row[i].(string)
		}
		return texts
	}
	values := make([]any, len(list))
	for k, w := range list {
		values[k] = w.row[i]
	}
	return values
}

// refused reports whether PostgreSQL can never hold what it was given: data exceptions and exceeded limits.
func refused(err error) bool {
	var e interface{ SQLState() string }
	return errors.As(err, &e) && (strings.HasPrefix(e.SQLState(), "22") || strings.HasPrefix(e.SQLState(), "54"))
}

func marks(from, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "$" + strconv.Itoa(from+i+1)
	}
	return out
}

// each makes the writes in one commit. statement makes those of a list, and returns the ids of those that were made.
// When a batch has several writes to one saga, the first is made: the others expect a revision that has passed.
func (s *Store) each(
	ctx context.Context, list []write, statement func(list []write) (query string, args []any),
) []error {
	done, first := map[string]bool{}, map[string]int{}
	rows := make([]write, 0, len(list))
	for i, w := range list {
		if _, again := first[w.id]; !again {
			first[w.id] = i
			rows = append(rows, w)
		}
	}
	run := func(ctx context.Context, rows []write) error {
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
				errs = append(errs, s.each(ctx, list[i:i+1], statement)...)
			}
			return errs
		}
	}
	errs := groupcommit.Same(err, len(list))
	for i, w := range list {
		if err == nil && (!done[w.id] || first[w.id] != i) {
			errs[i] = errMissed
		}
	}
	return errs
}
