package saga

import (
	"context"
	"time"
)

// boundedStore bounds each call to a store: a connection that has gone silent fails the call, and the caller tries
// again, on another connection.
type boundedStore struct {
	Store
	timeout time.Duration
}

func (s boundedStore) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

func (s boundedStore) Insert(ctx context.Context, r Record) (Record, bool, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Insert(ctx, r)
}

func (s boundedStore) Get(ctx context.Context, id string) (Record, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Get(ctx, id)
}

func (s boundedStore) Claim(ctx context.Context, node string, kinds []Kind, limit int) ([]Claimed, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Claim(ctx, node, kinds, limit)
}

func (s boundedStore) Save(ctx context.Context, r Record) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Save(ctx, r)
}

func (s boundedStore) Signal(
	ctx context.Context, id, name string, payload func(Record) ([]byte, error),
) (first bool, err error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Signal(ctx, id, name, payload)
}

func (s boundedStore) Heartbeat(ctx context.Context, node string, lease time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, min(s.timeout, lease/4))
	defer cancel()
	return s.Store.Heartbeat(ctx, node, lease)
}

func (s boundedStore) Leave(ctx context.Context, node string) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Leave(ctx, node)
}

func (s boundedStore) List(ctx context.Context, f Filter) ([]Record, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.List(ctx, f)
}

func (s boundedStore) Shapes(ctx context.Context, k Kind) ([]string, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Shapes(ctx, k)
}

func (s boundedStore) Count(ctx context.Context, f Filter) (int, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Count(ctx, f)
}

func (s boundedStore) Delete(ctx context.Context, id string) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Delete(ctx, id)
}

func (s boundedStore) Prune(ctx context.Context, before time.Time, limit int) (int, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.Store.Prune(ctx, before, limit)
}
