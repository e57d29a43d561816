// Package memrepo keeps entities in memory: for tests, examples and caches. It has the semantics of the other
// adapters of package repository and is the reference that their queries are compared with.
//
//	products, err := memrepo.New[Product](memrepo.Config{Unique: [][]string{{"sku"}}})
//
// The functions of a write may use the Repo with the context that they are given; others wait meanwhile. It takes part
// in no transaction: what is written inside a sqldb.InTx stays when that rolls back. Everything is lost when the
// process ends.
package memrepo

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
)

// Config tunes a Repo. The zero Config is useful.
type Config struct {
	// Unique lists the sets of columns whose values no two entities share. NULL is shared freely.
	Unique [][]string
}

// Repo is a repository.Repository in memory. It is safe for concurrent use.
type Repo[E any] struct {
	m      *driver.Mapping
	life   driver.Lifecycle[E]
	unique []uniqueSet

	mu   sync.RWMutex
	rows map[string]E
}

var _ repository.Repository[repository.Meta] = (*Repo[repository.Meta])(nil)

// New returns an empty Repo, or an error when E cannot be mapped or Config names an unknown column.
func New[E any](cfg Config) (*Repo[E], error) {
	m, err := driver.MappingOf[E]()
	if err != nil {
		return nil, err
	}
	r := &Repo[E]{m: m, life: driver.NewLifecycle[E](m, time.Microsecond), rows: map[string]E{}}
	for _, cols := range cfg.Unique {
		set := uniqueSet{holders: map[string]string{}}
		for _, c := range cols {
			i, ok := m.Column(c)
			if !ok {
				return nil, &repository.FieldError{Field: c, Reason: "is unknown"}
			}
			set.columns = append(set.columns, i)
		}
		r.unique = append(r.unique, set)
	}
	return r, nil
}

// Must returns r or panics with err.
func Must[E any](r *Repo[E], err error) *Repo[E] {
	if err != nil {
		panic(err)
	}
	return r
}

// Create implements repository.Repository.
func (r *Repo[E]) Create(ctx context.Context, e E, then ...repository.WriteHook[E]) (E, error) {
	var zero E
	e, err := r.life.Clone(&e)
	if err != nil {
		return zero, err
	}
	r.life.Init(&e)
	ctx, unlock, err := r.lock(ctx)
	if err != nil {
		return zero, err
	}
	defer unlock()
	if err := r.free(&e); err != nil {
		return zero, err
	}
	if err := run(ctx, &e, then); err != nil {
		return zero, err
	}
	if err := r.free(&e); err != nil { // the functions may have stored something, too
		return zero, err
	}
	return r.put(&e)
}

// free returns an error when a new entity cannot be stored.
func (r *Repo[E]) free(e *E) error {
	if _, taken := r.rows[r.life.ID(e)]; taken {
		return &repository.UniqueError{Constraint: "id", Fields: []string{"id"}}
	}
	return r.checkUnique(e)
}

// run runs the functions of a write on e.
func run[E any](ctx context.Context, e *E, then []repository.WriteHook[E]) error {
	for _, fn := range then {
		if err := fn(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// put stores a copy in place of what was there, and returns another.
func (r *Repo[E]) put(e *E) (E, error) {
	for _, c := range r.m.Columns {
		if _, err := c.Encode(reflect.ValueOf(e).Elem()); err != nil {
			var zero E
			return zero, fmt.Errorf("memrepo: write: %w", err)
		}
	}
	kept, err := r.life.Clone(e)
	if err != nil {
		return kept, err
	}
	r.forget(r.life.ID(e))
	r.rows[r.life.ID(e)] = kept
	for _, set := range r.unique {
		if k, ok := set.key(r.m, e); ok {
			set.holders[k] = r.life.ID(e)
		}
	}
	return *e, nil
}

// forget removes an entity.
func (r *Repo[E]) forget(id string) {
	old, ok := r.rows[id]
	if !ok {
		return
	}
	for _, set := range r.unique {
		if k, ok := set.key(r.m, &old); ok {
			delete(set.holders, k)
		}
	}
	delete(r.rows, id)
}

func (r *Repo[E]) checkUnique(e *E) error {
	for _, set := range r.unique {
		k, ok := set.key(r.m, e)
		if !ok {
			continue
		}
		if holder, taken := set.holders[k]; taken && holder != r.life.ID(e) {
			var names []string
			for _, c := range set.columns {
				names = append(names, r.m.Columns[c].Name)
			}
			return &repository.UniqueError{Constraint: strings.Join(names, "_"), Fields: names}
		}
	}
	return nil
}

// Update implements repository.Repository.
func (r *Repo[E]) Update(ctx context.Context, id string, change repository.WriteHook[E]) (E, error) {
	ctx, unlock, err := r.lock(ctx)
	if err != nil {
		var zero E
		return zero, err
	}
	defer unlock()
	before, ok := r.rows[id]
	if !ok {
		return before, fmt.Errorf("memrepo: update %q: %w", id, repository.ErrNotFound)
	}
	return r.change(before, func(e *E) error { return change(ctx, e) })
}

func (r *Repo[E]) change(before E, fn func(*E) error) (E, error) {
	var zero E
	e, err := r.life.Clone(&before)
	if err != nil {
		return zero, err
	}
	if err := fn(&e); err != nil {
		return zero, err
	}
	now, ok := r.rows[r.life.ID(&before)] // fn may have changed it itself
	if !ok {
		return zero, fmt.Errorf("memrepo: update %q: %w", r.life.ID(&before), repository.ErrNotFound)
	}
	if read, actual := r.life.Version(&before), r.life.Version(&now); read != actual {
		return zero, &repository.ConflictError{ID: r.life.ID(&before), Expected: read, Actual: actual}
	}
	r.life.Touch(&e, &before)
	if err := r.checkUnique(&e); err != nil {
		return zero, err
	}
	return r.put(&e)
}

// Replace implements repository.Repository.
func (r *Repo[E]) Replace(ctx context.Context, e E) (E, error) {
	_, unlock, err := r.lock(ctx)
	if err != nil {
		var zero E
		return zero, err
	}
	defer unlock()
	id := r.life.ID(&e)
	before, ok := r.rows[id]
	if !ok {
		return before, fmt.Errorf("memrepo: replace %q: %w", id, repository.ErrNotFound)
	}
	if want, have := r.life.Version(&e), r.life.Version(&before); want != have {
		var zero E
		return zero, &repository.ConflictError{ID: id, Expected: want, Actual: have}
	}
	copied, err := r.life.Clone(&e)
	if err != nil {
		return copied, err
	}
	return r.change(before, func(next *E) error { *next = copied; return nil })
}

// Delete implements repository.Repository.
func (r *Repo[E]) Delete(ctx context.Context, id string, then ...repository.WriteHook[E]) error {
	ctx, unlock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, ok := r.rows[id]
	if !ok {
		return fmt.Errorf("memrepo: delete %q: %w", id, repository.ErrNotFound)
	}
	if err := run(ctx, &e, then); err != nil {
		return err
	}
	r.forget(id)
	return nil
}
