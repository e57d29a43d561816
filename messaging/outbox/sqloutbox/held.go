package sqloutbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sillar-go/sillar/messaging/outbox"
)

var _ outbox.HeldStore = (*Outbox)(nil)

// ListHeld implements outbox.HeldStore. The entries have no headers and no body.
func (o *Outbox) ListHeld(ctx context.Context, limit int) (held []outbox.Held, err error) {
	rows, err := o.querier(ctx).Query(ctx,
		"SELECT seq, id, topic, source, key, content_type, occurred_at, attempts, due_at FROM "+
			o.table+" WHERE due_at <> 0 ORDER BY abs(due_at) LIMIT $1", limit)
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: list held events: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var h outbox.Held
		var seq, at, due int64
		if err := rows.Scan(&seq, &h.ID, &h.Type, &h.Source, &h.Key, &h.ContentType, &at, &h.Attempts, &due); err != nil {
			return nil, fmt.Errorf("sqloutbox: list held events: %w", err)
		}
		h.Ref, h.Time, h.StopsKey = strconv.FormatInt(seq, 10), time.UnixMicro(at).UTC(), due > 0
		h.Until = time.UnixMicro(max(due, -due)).UTC()
		held = append(held, h)
	}
	return held, rows.Err()
}

// RetryHeld implements outbox.HeldStore.
func (o *Outbox) RetryHeld(ctx context.Context, refs ...string) (int64, error) {
	const retry = " SET due_at = CASE WHEN due_at > 0 THEN 1 ELSE -1 END"
	if len(refs) == 0 {
		return o.exec(ctx, "UPDATE "+o.table+retry+" WHERE due_at <> 0 AND NOT ("+scheduled+")")
	}
	return o.held(ctx, "UPDATE "+o.table+retry, refs)
}

// SkipHeld implements outbox.HeldStore.
func (o *Outbox) SkipHeld(ctx context.Context, refs ...string) (int64, error) {
	return o.held(ctx, "UPDATE "+o.table+" SET due_at = -abs(due_at), attempts = "+
		"CASE WHEN attempts = 0 THEN 1 ELSE attempts END", refs)
}

// DropHeld implements outbox.HeldStore.
func (o *Outbox) DropHeld(ctx context.Context, refs ...string) (int64, error) {
	return o.held(ctx, "DELETE FROM "+o.table, refs)
}

// maxRefs bounds the parameters of a statement.
const maxRefs = 10_000

// held runs a statement on the held entries that are named and that no relay has on lease.
func (o *Outbox) held(ctx context.Context, statement string, refs []string) (n int64, err error) {
	for len(refs) > 0 {
		var entries []outbox.Entry
		for _, ref := range refs[:min(len(refs), maxRefs)] {
			entries = append(entries, outbox.Entry{Ref: ref})
		}
		refs = refs[len(entries):]
		var args []any
		list := in(&args, entries)
		some, err := o.exec(ctx, statement+" WHERE due_at <> 0 AND leased_until <= "+o.now+" AND seq IN "+list, args...)
		if n += some; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (o *Outbox) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	n, err := o.querier(ctx).Exec(ctx, statement, args...)
	if err != nil {
		return 0, fmt.Errorf("sqloutbox: held events: %w", err)
	}
	return n, nil
}
