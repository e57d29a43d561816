package memrepo

import (
	"context"
	"iter"
	"reflect"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
)

// View returns the entities of r as the smaller struct P, as sqlrepo and mongorepo do of a table or collection: P has
// columns of r with the same types, else the error is a *repository.FieldError. Each read copies all entities.
func View[P, E any](r *Repo[E]) (repository.Reader[P], error) {
	small, err := New[P](Config{})
	if err != nil {
		return nil, err
	}
	v := view[P, E]{of: r, small: small}
	for _, c := range small.m.Columns {
		i, ok := r.m.Column(c.Name)
		if !ok {
			return nil, &repository.FieldError{Field: c.Name, Reason: "is unknown"}
		}
		if r.m.Columns[i].Type != c.Type {
			return nil, &repository.FieldError{Field: c.Name, Reason: "has another type"}
		}
		v.from = append(v.from, r.m.Columns[i])
	}
	return v, nil
}

type view[P, E any] struct {
	of    *Repo[E]
	small *Repo[P]        // whose mapping is that of P; it has no entities
	from  []driver.Column // of E, for each column of P
}

// read returns a Repo that has the entities as they are now.
func (v view[P, E]) read(ctx context.Context) (*Repo[P], error) {
	unlock, err := v.of.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now := &Repo[P]{m: v.small.m, life: v.small.life, rows: make(map[string]P, len(v.of.rows))}
	for id, e := range v.of.rows {
		var p P
		from, to := reflect.ValueOf(&e).Elem(), reflect.ValueOf(&p).Elem()
		for i, c := range v.small.m.Columns {
			to.FieldByIndex(c.Index).Set(from.FieldByIndex(v.from[i].Index))
		}
		now.rows[id] = p
	}
	return now, nil
}

// Get implements repository.Reader.
func (v view[P, E]) Get(ctx context.Context, id string) (P, error) {
	now, err := v.read(ctx)
	if err != nil {
		var none P
		return none, err
	}
	return now.Get(ctx, id)
}

// GetMany implements repository.Reader.
func (v view[P, E]) GetMany(ctx context.Context, ids []string) ([]P, error) {
	now, err := v.read(ctx)
	if err != nil {
		return nil, err
	}
	return now.GetMany(ctx, ids)
}

// Find implements repository.Reader.
func (v view[P, E]) Find(ctx context.Context, q repository.Query[P]) (repository.Page[P], error) {
	now, err := v.read(ctx)
	if err != nil {
		return repository.Page[P]{}, err
	}
	return now.Find(ctx, q)
}

// Each implements repository.Reader.
func (v view[P, E]) Each(ctx context.Context, q repository.Query[P]) iter.Seq2[P, error] {
	return q.Pages(ctx, v.Find)
}

// Count implements repository.Reader.
func (v view[P, E]) Count(ctx context.Context, where repository.Filter[P]) (int64, error) {
	now, err := v.read(ctx)
	if err != nil {
		return 0, err
	}
	return now.Count(ctx, where)
}
