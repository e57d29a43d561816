// Package groupcommit lets writes that come at the same time share a commit.
package groupcommit

import (
	"cmp"
	"context"
	"sync"
	"time"
)

const (
	// maxGroup bounds how many writes share a commit.
	maxGroup = 128
	// crowd is how large a group is after which the next one is given time to come together.
	crowd = 12
	// flushTimeout is the default of Group.Timeout.
	flushTimeout = 5 * time.Second
)

// Group lets writes that come while another one is being committed share the next commit. A write that comes alone is
// made at once, so the group costs nothing while little happens, and grows with the load.
type Group[T any] struct {
	// Flush makes the writes in one commit, and returns an error each.
	Flush func(ctx context.Context, writes []T) []error
	// Gather bounds the time that is given to the next group to come together after a large one, at most half of what
	// the commit took.
	Gather time.Duration
	// Timeout bounds a commit, and so how long a connection that has gone silent holds up other writes. Default 5 s.
	Timeout time.Duration

	mu      sync.Mutex
	waiting []pending[T]
	busy    bool
}

type pending[T any] struct {
	write T
	done  chan error
}

// Do makes a write. When ctx ends first it is not known whether the write was made.
func (g *Group[T]) Do(ctx context.Context, write T) error {
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

// run flushes until no caller waits. A write outlives its caller's context: others share its commit.
func (g *Group[T]) run(ctx context.Context) {
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
		begun := time.Now()
		g.one(ctx, now)
		if g.Gather > 0 && len(now) >= crowd {
			time.Sleep(min(g.Gather, time.Since(begun)/2))
		}
	}
}

func (g *Group[T]) one(ctx context.Context, now []pending[T]) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(g.Timeout, flushTimeout))
	defer cancel()
	writes := make([]T, len(now))
	for i, p := range now {
		writes[i] = p.write
	}
	errs := g.Flush(ctx, writes)
	for i, p := range now {
		p.done <- errs[i]
	}
}

// Same is one error for each of n writes.
func Same(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
