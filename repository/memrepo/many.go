package memrepo

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/sillar-go/sillar/repository"
)

// CreateMany implements repository.Repository.
func (r *Repo[E]) CreateMany(ctx context.Context, list []E) ([]E, error) {
	_, unlock, err := r.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now, out := time.Now(), make([]E, 0, len(list))
	undo := func() {
		for i := range out {
			r.forget(r.life.ID(&out[i]))
		}
	}
	for i := range list {
		e, err := r.life.Clone(&list[i])
		if err == nil {
			r.life.Import(&e, now)
			err = r.free(&e)
		}
		if err == nil {
			e, err = r.put(&e)
		}
		if err != nil {
			undo()
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Put implements repository.Repository.
func (r *Repo[E]) Put(ctx context.Context, e E) (E, error) {
	var zero E
	_, unlock, err := r.lock(ctx)
	if err != nil {
		return zero, err
	}
	defer unlock()
	before, exists := r.rows[r.life.ID(&e)]
	if e, err = r.life.Clone(&e); err != nil {
		return zero, err
	}
	if !exists {
		r.life.Init(&e)
	} else {
		r.life.Touch(&e, &before)
	}
	if err := r.checkUnique(&e); err != nil {
		return zero, err
	}
	return r.put(&e)
}

// UpdateWhere implements repository.Repository.
func (r *Repo[E]) UpdateWhere(
	ctx context.Context, where repository.Filter[E], set ...repository.Assignment[E],
) (int64, error) {
	values, err := repository.Assignments(set)
	if err != nil {
		return 0, err
	}
	return r.each(ctx, where, func(e *E) error {
		before := *e
		next, err := r.life.Clone(e)
		if err != nil {
			return err
		}
		v := reflect.ValueOf(&next).Elem()
		for i, value := range values {
			if err := r.m.Columns[i].Decode(v, value); err != nil {
				return fmt.Errorf("memrepo: update: column %s: %w", r.m.Columns[i].Name, err)
			}
		}
		r.life.Touch(&next, &before)
		if err := r.checkUnique(&next); err != nil {
			return err
		}
		_, err = r.put(&next)
		return err
	})
}

// DeleteWhere implements repository.Repository.
func (r *Repo[E]) DeleteWhere(ctx context.Context, where repository.Filter[E]) (int64, error) {
	return r.each(ctx, where, func(e *E) error { r.forget(r.life.ID(e)); return nil })
}

// each runs fn for all entities that match, or for none where it fails.
func (r *Repo[E]) each(ctx context.Context, where repository.Filter[E], fn func(e *E) error) (int64, error) {
	n, err := where.Node()
	if err != nil {
		return 0, err
	}
	_, unlock, err := r.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	found := r.matching(n)
	for i := range found {
		if err := fn(&found[i]); err != nil {
			for j := range i { // what was changed is put back
				if _, perr := r.put(&found[j]); perr != nil {
					return 0, perr
				}
			}
			return 0, err
		}
	}
	return int64(len(found)), nil
}
