package sqloutbox

import (
	"context"
	"errors"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/pglisten"
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

// listen turns notifications into wake-ups, through lost connections. Behind a pooler relays only poll.
func (o *Outbox) listen(ctx context.Context, c chan<- struct{}) {
	wake := func(string) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	pause := backoff.Exponential(time.Second, 30*time.Second)
	for attempt := 1; ctx.Err() == nil; attempt++ {
		listened, err := pglisten.Run(ctx, o.db.Pool(), o.table, pglisten.Every, nil, wake)
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if listened {
			attempt = 0
		}
		_ = backoff.Sleep(ctx, pause.Delay(attempt+1))
	}
}
