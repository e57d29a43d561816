package memrepo

import (
	"context"
	"fmt"
	"iter"
	"reflect"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
)

// Get implements repository.Repository.
func (r *Repo[E]) Get(ctx context.Context, id string) (E, error) {
	unlock, err := r.rlock(ctx)
	if err != nil {
		var zero E
		return zero, err
	}
	defer unlock()
	e, ok := r.rows[id]
	if !ok {
		return e, fmt.Errorf("memrepo: get %q: %w", id, repository.ErrNotFound)
	}
	return r.life.Clone(&e)
}

// GetMany implements repository.Repository.
func (r *Repo[E]) GetMany(ctx context.Context, ids []string) ([]E, error) {
	unlock, err := r.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []E
	for _, id := range ids {
		if e, ok := r.rows[id]; ok {
			c, err := r.life.Clone(&e)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// Find implements repository.Repository.
func (r *Repo[E]) Find(ctx context.Context, q repository.Query[E]) (repository.Page[E], error) {
	p, err := q.Plan()
	if err != nil {
		return repository.Page[E]{}, err
	}
	unlock, err := r.rlock(ctx)
	if err != nil {
		return repository.Page[E]{}, err
	}
	defer unlock()
	found := r.matching(p.Where)
	sortBy(r.m, p.Keys, found)
	found = found[min(p.Offset, len(found)):]
	found = found[:min(p.Limit+1, len(found))]
	for i := range found {
		if found[i], err = r.life.Clone(&found[i]); err != nil {
			return repository.Page[E]{}, err
		}
	}
	page, next := driver.Page(p, found)
	return repository.Page[E]{Items: page, Next: next}, nil
}

func (r *Repo[E]) matching(n driver.Node) []E {
	var found []E
	for _, e := range r.rows {
		if matches(r.m, n, reflect.ValueOf(&e).Elem()) {
			found = append(found, e)
		}
	}
	return found
}

// Each implements repository.Repository.
func (r *Repo[E]) Each(ctx context.Context, q repository.Query[E]) iter.Seq2[E, error] {
	return q.Pages(ctx, r.Find)
}

// Count implements repository.Repository.
func (r *Repo[E]) Count(ctx context.Context, where repository.Filter[E]) (int64, error) {
	n, err := where.Node()
	if err != nil {
		return 0, err
	}
	unlock, err := r.rlock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return int64(len(r.matching(n))), nil
}
