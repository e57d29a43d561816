package sqloutbox

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sillar-go/sillar/internal/backoff"
)

// coalesce is how long commits are gathered for one NOTIFY: it takes a lock that all committers share.
const coalesce = 10 * time.Millisecond

// signal wakes the relays of this process, or those of others where there is none here.
func (o *Outbox) signal() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.waiting {
		select {
		case c <- struct{}{}:
		default: // it has yet to take the last one
		}
	}
	if len(o.waiting) > 0 || o.db.Pool() == nil || o.timer != nil {
		return
	}
	o.timer = time.AfterFunc(coalesce, func() {
		o.mu.Lock()
		o.timer = nil
		o.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = o.db.Pool().Exec(ctx, "SELECT pg_notify($1, '')", o.table) // a hint; relays poll besides
	})
}

// Wake implements outbox.Store.
func (o *Outbox) Wake(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	o.mu.Lock()
	o.waiting[c] = struct{}{}
	o.mu.Unlock()
	context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.waiting, c)
	})
	if o.db.Pool() != nil {
		go o.listen(ctx, c)
	}
	return c
}

// listen turns notifications into wake-ups, through lost connections.
func (o *Outbox) listen(ctx context.Context, c chan<- struct{}) {
	pause := backoff.Exponential(time.Second, 30*time.Second)
	for attempt := 1; ctx.Err() == nil; attempt++ {
		if o.listenOnce(ctx, c) {
			attempt = 0
		}
		_ = backoff.Sleep(ctx, pause.Delay(attempt+1))
	}
}

func (o *Outbox) listenOnce(ctx context.Context, c chan<- struct{}) (listened bool) {
	pooled, err := o.db.Pool().Acquire(ctx)
	if err != nil {
		return false
	}
	conn := pooled.Hijack() // a connection that listens must not go back
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{o.table}.Sanitize()); err != nil {
		return false
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return true
		}
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
