package sagasql

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sillar-go/sillar/internal/pglisten"
)

const (
	// coalesce is how long ends of sagas are gathered for one NOTIFY: it takes a lock that all committers share.
	coalesce = 10 * time.Millisecond
	// listening is how long other processes notify one that listens, which renews it after a third of that.
	listening = time.Minute
	// maxNotified bounds the ids that are gathered. Those beyond it are found by asking.
	maxNotified = 10_000
	// maxPayload bounds what a notification holds: PostgreSQL takes fewer than 8,000 bytes.
	maxPayload = 7900
)

// listeners is the row of sillar_orchestrators whose lease says that a process listens.
const listeners = "$listeners"

// notifier sends the ids of sagas that this process has ended, while any process listens.
type notifier struct {
	wanted atomic.Bool // a process listens: Heartbeat sets it

	mu    sync.Mutex
	ended []string
	timer *time.Timer
}

// notifyEnded has other processes notified of the end of a saga once the transaction in ctx, if any, is committed.
func (s *Store) notifyEnded(ctx context.Context, id string) {
	if s.notifier.wanted.Load() {
		s.db.AfterCommit(ctx, func() { s.notifier.add(s.db.Pool(), s.channel(), id) })
	}
}

func (n *notifier) add(pool *pgxpool.Pool, channel, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.ended) < maxNotified {
		n.ended = append(n.ended, id)
	}
	if n.timer != nil {
		return
	}
	n.timer = time.AfterFunc(coalesce, func() {
		n.mu.Lock()
		ended := n.ended
		n.ended, n.timer = nil, nil
		n.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// A hint that a crash may lose: the commit need not wait for the disk.
		_, _ = pool.Exec(ctx, `SELECT pg_notify($1, p), set_config('synchronous_commit', 'off', true)
			FROM unnest($2::text[]) p`, channel, payloads(ended))
	})
}

// payloads joins ids to as few payloads as hold them.
func payloads(ids []string) (list []string) {
	for _, id := range ids {
		last := len(list) - 1
		if last < 0 || len(list[last])+1+len(id) > maxPayload {
			list = append(list, id)
			continue
		}
		list[last] += "\n" + id
	}
	return slices.DeleteFunc(list, func(p string) bool { return len(p) > maxPayload })
}

func (s *Store) channel() string { return s.prefix + "sagas_ended" }

// Listen implements saga.Listener on PostgreSQL through pgx. It holds a connection of its own. Behind a pooler such as
// pgbouncer notifications would not come: the error is errors.ErrUnsupported.
func (s *Store) Listen(ctx context.Context, ended func(ids []string)) error {
	if s.db.Pool() == nil {
		return nil
	}
	_, err := pglisten.Run(ctx, s.db.Pool(), s.channel(), listening/3, s.renew,
		func(payload string) { ended(strings.Split(payload, "\n")) })
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it has ended as it was asked to
	}
	return fmt.Errorf("sagasql: listen: %w", err)
}

// renew has other processes go on to notify.
func (s *Store) renew(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, s.sql(`INSERT INTO sillar_orchestrators AS o (node, expires_at) VALUES ($1, @now + $2)
		ON CONFLICT (node) DO UPDATE SET expires_at = GREATEST(o.expires_at, excluded.expires_at)`),
		listeners, listening.Microseconds())
	return err
}
