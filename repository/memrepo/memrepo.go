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
	"iter"
	"reflect"
	"slices"
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

// matches evaluates a filter: two-valued, a comparison with NULL is false.
func matches(m *driver.Mapping, n driver.Node, entity reflect.Value) bool {
	switch n.Op {
	case driver.OpAll:
		return true
	case driver.OpAnd:
		return !slices.ContainsFunc(n.Kids, func(k driver.Node) bool { return !matches(m, k, entity) })
	case driver.OpOr:
		return slices.ContainsFunc(n.Kids, func(k driver.Node) bool { return matches(m, k, entity) })
	case driver.OpNot:
		return !matches(m, n.Kids[0], entity)
	}
	if n.Op == driver.OpElement {
		return m.Field(n.Column).Contains(entity, n.Value)
	}
	v := m.Field(n.Column).Value(entity)
	if n.Op == driver.OpNull || v == nil {
		return n.Op == driver.OpNull && v == nil
	}
	switch n.Op {
	case driver.OpEq:
		return compare(v, n.Value) == 0
	case driver.OpNe:
		return compare(v, n.Value) != 0
	case driver.OpLt:
		return compare(v, n.Value) < 0
	case driver.OpLte:
		return compare(v, n.Value) <= 0
	case driver.OpGt:
		return compare(v, n.Value) > 0
	case driver.OpGte:
		return compare(v, n.Value) >= 0
	case driver.OpIn:
		return slices.ContainsFunc(n.Values, func(w any) bool { return compare(v, w) == 0 })
	case driver.OpPrefix:
		return strings.HasPrefix(v.(string), n.Value.(string))
	case driver.OpContains:
		return strings.Contains(v.(string), n.Value.(string))
	case driver.OpContainsFold:
		return strings.Contains(lower(v.(string)), lower(n.Value.(string)))
	}
	return false
}

// lower makes ASCII letters small.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
