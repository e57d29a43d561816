package memrepo

import (
	"context"
	"fmt"
	"sync/atomic"
)

// holdKey keys the write that a context belongs to by its Repo.
type holdKey struct{ repo any }

// hold is a write that has the Repo, until it has ended.
type hold struct{ ended atomic.Bool }

// holds reports whether ctx is that of a function of a write: what it does with the Repo is a part of that, and must
// not wait for its end.
func (r *Repo[E]) holds(ctx context.Context) bool {
	h, _ := ctx.Value(holdKey{r}).(*hold)
	return h != nil && !h.ended.Load()
}

// lock begins a write, and returns the context for its functions. A context that has ended begins nothing.
func (r *Repo[E]) lock(ctx context.Context) (inside context.Context, unlock func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return ctx, nil, fmt.Errorf("memrepo: %w", err)
	}
	if r.holds(ctx) {
		return ctx, func() {}, nil
	}
	r.mu.Lock()
	h := &hold{}
	return context.WithValue(ctx, holdKey{r}, h), func() { h.ended.Store(true); r.mu.Unlock() }, nil
}

// rlock begins a read, and returns what ends it. A context that has ended begins nothing.
func (r *Repo[E]) rlock(ctx context.Context) (unlock func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("memrepo: %w", err)
	}
	if r.holds(ctx) {
		return func() {}, nil
	}
	r.mu.RLock()
	return r.mu.RUnlock, nil
}
