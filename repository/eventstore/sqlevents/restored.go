package sqlevents

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sillar-go/sillar/repository/eventstore"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// ErrRestored says that the events come from another PostgreSQL server (pg_dump, logical replication, an upgrade by
// either), whose transaction ids are ahead of this one's. Events would be hidden, and new ones be read before old ones
// or never: nothing is read or appended until Store.RepairRestored has run.
var ErrRestored = errors.New("sqlevents: the events were restored from another server: " +
	"stop what appends and reads, and run Store.RepairRestored once")

// verifyEvery is how often a Store looks whether its database was replaced by a restored one.
const verifyEvery = time.Minute

// verify returns ErrRestored when there are events of transactions that this server has not seen yet. It looks every
// verifyEvery.
func (s *Store) verify(ctx context.Context) error {
	if s.db.Dialect() != sqldb.PostgreSQL {
		return nil
	}
	if at := s.verified.Load(); at != nil && time.Since(*at) < verifyEvery {
		return nil
	}
	restored, err := s.restored(ctx)
	if err != nil {
		return err
	}
	if restored {
		return ErrRestored
	}
	now := time.Now()
	s.verified.Store(&now)
	return nil
}

// restored reports whether the last event is of a transaction that has not begun yet, and is not the caller's own.
func (s *Store) restored(ctx context.Context) (bool, error) {
	var n int
	err := s.db.Querier(ctx).QueryRow(ctx,
		s.sql(`SELECT count(*) FROM (SELECT xid FROM sillar_events ORDER BY xid DESC, position DESC LIMIT 1) AS e
		WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) AND xid IS DISTINCT
		FROM pg_current_xact_id_if_assigned()`)).Scan(&n)
	return n > 0, err
}

// foreign returns ErrCursor for a cursor whose transaction this server has not seen yet: one that was kept elsewhere
// while the events were restored.
func (s *Store) foreign(ctx context.Context, c cursor) error {
	if s.db.Dialect() != sqldb.PostgreSQL || c.xid < s.seen.Load() {
		return nil
	}
	var text string
	if err := s.db.Querier(ctx).QueryRow(ctx,
		"SELECT pg_snapshot_xmax(pg_current_snapshot())::text").Scan(&text); err != nil {
		return err
	}
	next, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("transaction id %q: %w", text, err)
	}
	s.seen.Store(next)
	if c.xid >= next {
		return fmt.Errorf("%w: it is of another server's transactions", eventstore.ErrCursor)
	}
	return nil
}

// RepairRestored gives the events of a database that was restored from another PostgreSQL server transaction ids of
// this one, and moves the checkpoints with them: the order of reading stays as it was, and projectors go on where they
// were. It does nothing where nothing is to be repaired, and on SQLite. Run it before anything appends; it locks the
// tables and rewrites all events. Cursors that are kept elsewhere, as with Subscribe, no longer hold: read from the
// beginning. It takes a day at most where ctx has no deadline.
func (s *Store) RepairRestored(ctx context.Context) error {
	if s.db.Dialect() != sqldb.PostgreSQL {
		return nil
	}
	if _, ok := ctx.Deadline(); !ok { // statements that rewrite all events take longer than sqldb.Config.StatementTimeout
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 24*time.Hour)
		defer cancel()
	}
	for {
		var missing int64
		err := s.db.InTx(ctx, func(ctx context.Context) (err error) {
			missing, err = s.repair(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("sqlevents: repair what was restored: %w", err)
		}
		if missing == 0 {
			return nil
		}
		// A young server: it has used fewer transaction ids than the events need.
		err = s.db.Exec(s.db.WithoutTx(ctx), fmt.Sprintf(
			"DO $$ BEGIN FOR i IN 1..%d LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$", missing))
		if err != nil {
			return fmt.Errorf("sqlevents: use up %d transaction ids: %w", missing, err)
		}
	}
}

// runsSQL numbers the events by runs, in the order of reading, in which their positions grow: with the number in place
// of the transaction id the order is the same.
const runsSQL = `SELECT stream, version, xid, position, 1 + sum(turn) OVER (ORDER BY xid, position) AS run FROM (
		SELECT *, CASE WHEN position < lag(position) OVER (ORDER BY xid, position) THEN 1 ELSE 0 END AS turn
		FROM sillar_events
	) AS e`

// repair rewrites the events in the transaction that ctx carries, or returns how many transaction ids are missing.
func (s *Store) repair(ctx context.Context) (missing int64, err error) {
	q := s.db.Querier(ctx)
	if _, err := q.Exec(ctx,
		s.sql("LOCK TABLE sillar_streams, sillar_events, sillar_checkpoints IN EXCLUSIVE MODE")); err != nil {
		return 0, err
	}
	if restored, err := s.restored(ctx); err != nil || !restored {
		return 0, err
	}
	var last, first int64
	err = q.QueryRow(ctx, s.sql("SELECT max(run)::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint FROM ("+
		runsSQL+") AS runs")).
		Scan(&last, &first)
	if err != nil || last >= first {
		return max(last-first+1, 0), err
	}
	for _, statement := range []string{
		`WITH runs AS MATERIALIZED (` + runsSQL + `), moved AS (
			UPDATE sillar_checkpoints SET place = coalesce((SELECT run || '-' || position FROM runs
				WHERE (xid, position) <= (split_part(place, '-', 1)::xid8, split_part(place, '-', 2)::bigint)
				ORDER BY xid DESC, position DESC LIMIT 1), '')
			WHERE place ~ '^[0-9]+-[0-9]+$'
		)
		UPDATE sillar_events AS e SET xid = run::text::xid8 FROM runs
		WHERE e.stream = runs.stream AND e.version = runs.version`,
		`UPDATE sillar_streams SET last_xid = '` + strconv.FormatInt(last, 10) + `'::xid8`,
		// Logical replication does not bring what sequences have counted.
		`SELECT setval(name, greatest(nextval(name), (SELECT max(position) FROM sillar_events)))
			FROM (SELECT pg_get_serial_sequence('sillar_events', 'position')::regclass AS name) AS sequence`,
	} {
		if _, err := q.Exec(ctx, s.sql(statement)); err != nil {
			return 0, err
		}
	}
	return 0, nil
}
