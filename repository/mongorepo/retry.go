package mongorepo

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// turns let writers of this process who have lost on a document take turns: they would only go on to beat each other.
type turns struct {
	seed maphash.Seed
	held []chan struct{}
}

func newTurns() turns {
	t := turns{maphash.MakeSeed(), make([]chan struct{}, 256)}
	for i := range t.held {
		t.held[i] = make(chan struct{}, 1)
	}
	return t
}

// turnKey marks the context of a caller that has a turn: its function's other changes do not wait, so that no caller
// waits for himself.
type turnKey struct{}

func (t turns) of(id string) chan struct{} {
	return t.held[maphash.String(t.seed, id)%uint64(len(t.held))]
}

// take waits for a turn on a document, and returns the context that holds it and how to give it back.
func (t turns) take(ctx context.Context, id string) (context.Context, func()) {
	if ctx.Value(turnKey{}) != nil {
		return ctx, func() {}
	}
	turn := t.of(id)
	select {
	case turn <- struct{}{}:
		return context.WithValue(ctx, turnKey{}, true), func() { <-turn }
	case <-ctx.Done(): // the next call says so
		return ctx, func() {}
	}
}

// again runs write until it meets no conflict of its own making.
func again[E, T any](ctx context.Context, r *Repo[E], id string,
	write func(ctx context.Context) (T, error)) (T, error) {
	pause := backoff.Exponential(time.Millisecond, 20*time.Millisecond)
	var release func()
	defer func() {
		if release != nil {
			release()
		}
	}()
	own := ctx
	if len(r.turns.of(id)) > 0 { // others are at it
		own, release = r.turns.take(ctx, id)
	}
	for n := 1; ; n++ {
		v, err := write(own)
		var stale *staleError
		if !errors.As(err, &stale) || n >= r.cfg.MaxAttempts {
			return v, err
		}
		if release == nil {
			own, release = r.turns.take(ctx, id) //nolint:fatcontext // once, and from the caller's
			continue
		}
		if backoff.Sleep(ctx, pause.Delay(n)) != nil {
			return v, err
		}
	}
}
