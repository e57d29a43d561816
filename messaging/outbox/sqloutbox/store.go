package sqloutbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sillar-go/sillar/messaging/outbox"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// lock lets one relay claim at a time.
func (o *Outbox) lock(ctx context.Context) error {
	if o.db.Dialect() != sqldb.PostgreSQL { // SQLite has one writer
		return nil
	}
	// A relay whose connection is frozen here must not keep the lock from the others. And a plan must not sort or read
	// all that waits: statistics of a time when all events were held say that next to none is new.
	_, err := o.querier(ctx).Exec(ctx, `SELECT set_config('idle_in_transaction_session_timeout', '10s', true),
		set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
		set_config('enable_seqscan', 'off', true)`)
	if err == nil {
		_, err = o.querier(ctx).Exec(ctx, "SELECT pg_advisory_xact_lock(7310582, hashtext($1))", o.table)
	}
	return err
}

// Claim implements outbox.Store. Claims come one after the other, so that of two relays only one sees a key free.
func (o *Outbox) Claim(ctx context.Context, owner string, limit int, lease time.Duration) ([]outbox.Entry, error) {
	// Indexes of what is held keep a claim from reading it. Only what stops a key, and is held or on lease, is looked
	// for.
	return o.claim(ctx, "due_at = 0", "seq", `AND NOT EXISTS (SELECT 1 FROM `+o.table+
		` p WHERE p.key = o.key AND p.due_at > 0 AND p.seq < o.seq)`,
		owner, limit, lease)
}

// ClaimHeld implements outbox.Store. From a key whose order is kept it takes the first event only.
func (o *Outbox) ClaimHeld(ctx context.Context, owner string, limit int, lease time.Duration) ([]outbox.Entry, error) {
	return o.claim(ctx, "due_at <> 0", "abs(due_at)",
		`AND (o.due_at < 0 OR NOT EXISTS (SELECT 1 FROM `+o.table+
			` p WHERE p.key = o.key AND p.due_at > 0 AND p.seq < o.seq))`,
		owner, limit, lease)
}

// claim leases entries of which a condition holds, in an order. A key's entries are left out when one of them is on
// lease, or as stopped says.
func (o *Outbox) claim(ctx context.Context, which, order, stopped, owner string, limit int,
	lease time.Duration) (entries []outbox.Entry, err error) {
	ctx = o.db.WithoutTx(ctx)
	// Most looks find nothing, and need no transaction for it.
	var one int
	err = o.querier(ctx).QueryRow(ctx, "SELECT 1 FROM "+o.table+" LIMIT 1").Scan(&one)
	if errors.Is(err, sqldb.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = o.db.InTx(ctx, func(ctx context.Context) error {
			entries = nil
			if err := o.lock(ctx); err != nil {
				return err
			}
			entries, err = o.due(ctx, which, order, stopped, limit)
			if err != nil || len(entries) == 0 {
				return err
			}
			args := []any{owner, lease.Microseconds()}
			query := "UPDATE " + o.table + " SET owner = $1, leased_until = " + o.now + " + $2 WHERE seq IN " +
				in(&args, entries)
			_, err := o.querier(ctx).Exec(ctx, query, replan(args)...)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: claim: %w", err)
	}
	return entries, nil
}

func (o *Outbox) due(ctx context.Context, which, order, stopped string, limit int) (entries []outbox.Entry, err error) {
	// One moment for all rows: else a lease that ends meanwhile holds an event back, and not what follows it.
	now, args := o.now, []any{limit}
	// The sum keeps PostgreSQL from what it knows of the column. What stops a key has indexes, which say > 0 too: a key
	// may have all of a backlog.
	rows, err := o.querier(ctx).Query(ctx,
		`SELECT seq, id, topic, source, key, content_type, occurred_at, headers, body, attempts FROM `+o.table+` o
		WHERE leased_until + 0 <= `+now+` AND `+which+` AND abs(due_at) <= `+now+` AND (key = ''
			OR NOT EXISTS (SELECT 1 FROM `+o.table+` p WHERE p.key = o.key AND p.leased_until > 0 AND p.leased_until > `+now+`)
			`+stopped+`)
		ORDER BY `+order+` LIMIT $1`, replan(args)...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e outbox.Entry
		var seq, at int64
		var headers string
		if err := rows.Scan(&seq, &e.ID, &e.Type, &e.Source, &e.Key, &e.ContentType, &at, &headers, &e.Body,
			&e.Attempts); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(headers), &e.Headers); err != nil {
			return nil, fmt.Errorf("headers of %s: %w", e.ID, err)
		}
		e.Ref, e.Time = strconv.FormatInt(seq, 10), time.UnixMicro(at).UTC()
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// replan has a statement planned for the table as it is. A table that is mostly empty fills up when the broker is away,
// and the best plan for an empty one reads all of it.
func replan(args []any) []any { return append([]any{sqldb.Replan}, args...) }

// in makes a list of the entries' rows, and adds them to the arguments.
func in(args *[]any, entries []outbox.Entry) string {
	marks := make([]string, len(entries))
	for i, e := range entries {
		seq, _ := strconv.ParseInt(e.Ref, 10, 64) // not ours: no row has the number 0
		*args = append(*args, seq)
		marks[i] = "$" + strconv.Itoa(len(*args))
	}
	return "(" + strings.Join(marks, ", ") + ")"
}

// Done implements outbox.Store.
func (o *Outbox) Done(ctx context.Context, owner string, entries []outbox.Entry) error {
	return o.settle(ctx, "DELETE FROM "+o.table, []any{owner}, entries)
}

// Release implements outbox.Store.
func (o *Outbox) Release(ctx context.Context, owner string, entries []outbox.Entry) error {
	return o.settle(ctx, "UPDATE "+o.table+" SET owner = '', leased_until = 0", []any{owner}, entries)
}

// Hold implements outbox.Store. An entry that does not stop its key has a negative due_at.
func (o *Outbox) Hold(ctx context.Context, owner string, entries []outbox.Entry, h outbox.Hold) error {
	due, counted := "("+o.now+" + $2)", ", attempts = attempts + 1"
	if !h.StopsKey {
		due = "-" + due
	}
	if h.Uncounted {
		counted = ""
	}
	return o.settle(ctx, "UPDATE "+o.table+" SET owner = '', leased_until = 0"+counted+", due_at = "+due,
		[]any{owner, h.Pause.Microseconds()}, entries)
}

// settle runs a statement on the entries that the owner, $1, still has.
func (o *Outbox) settle(ctx context.Context, statement string, args []any, entries []outbox.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	ctx = o.db.WithoutTx(ctx)
	list := in(&args, entries)
	if _, err := o.querier(ctx).Exec(ctx, statement+" WHERE owner = $1 AND seq IN "+list, replan(args)...); err != nil {
		return fmt.Errorf("sqloutbox: settle: %w", err)
	}
	return nil
}
