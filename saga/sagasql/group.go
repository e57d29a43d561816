package sagasql

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxGroup bounds how many writes share a commit.
	maxGroup = 128
	// crowd is a group after which the next one is given gather to come together: under load that is shorter than what
	// fewer commits save.
	crowd  = 12
	gather = time.Millisecond
	// flushTimeout bounds a commit.
	flushTimeout = 30 * time.Second
)

// group lets writes that come while another one is being committed share the next commit. A write that comes alone is
// made at once, so the group costs nothing while little happens, and grows with the load.
type group[T any] struct {
	// flush makes the writes in one commit, and returns an error each.
	flush func(ctx context.Context, writes []T) []error

	mu      sync.Mutex
	waiting []pending[T]
	busy    bool
}

type pending[T any] struct {
	write T
	done  chan error
}

// do makes a write. When ctx ends first it is not known whether the write was made.
func (g *group[T]) do(ctx context.Context, write T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := pending[T]{write, make(chan error, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	if !g.busy {
		g.busy = true
		go g.run(context.WithoutCancel(ctx))
	}
	g.mu.Unlock()
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run flushes until nobody waits. A write outlives its caller's context: others share its commit.
func (g *group[T]) run(ctx context.Context) {
	for {
		g.mu.Lock()
		now := g.waiting[:min(len(g.waiting), maxGroup)]
		g.waiting = g.waiting[len(now):]
		if len(now) == 0 {
			g.waiting, g.busy = nil, false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		g.one(ctx, now)
		if len(now) >= crowd {
			time.Sleep(gather)
		}
	}
}

func (g *group[T]) one(ctx context.Context, now []pending[T]) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	writes := make([]T, len(now))
	for i, p := range now {
		writes[i] = p.write
	}
	errs := g.flush(ctx, writes)
	for i, p := range now {
		p.done <- errs[i]
	}
}

// same is one error for each of n writes.
func same(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// errMissed says that a write found another row than it expected.
var errMissed = errors.New("sagasql: the row is not as expected")
