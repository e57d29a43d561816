package sqlrepo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// Config tunes a Repo.
type Config struct {
	// Table is the name of the table, with or without a schema before it. Required; letters, digits and _. Names are
	// quoted, so that they may be reserved words and keep their case.
	Table string
}

var validTable = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// Repo is a repository.Repository over a SQL table. It is safe for concurrent use.
type Repo[E any] struct {
	db    *sqldb.DB
	table string
	m     *driver.Mapping
	life  driver.Lifecycle[E]
	sql   statements
	lists bool                       // there may be arrays of PostgreSQL
	found atomic.Pointer[statements] // where there are

	nulls   atomic.Bool // a column was NULL that no pointer takes
	columns atomic.Pointer[map[string]column]
}

var _ repository.Repository[repository.Meta] = (*Repo[repository.Meta])(nil)

// New returns a Repo over an existing table, or an error when E cannot be mapped or the name of the table is unusable.
func New[E any](db *sqldb.DB, cfg Config) (*Repo[E], error) {
	if db == nil {
		return nil, errors.New("sqlrepo: New needs a database")
	}
	if !validTable.MatchString(cfg.Table) {
		return nil, fmt.Errorf("sqlrepo: table name %q does not match %s", cfg.Table, validTable)
	}
	m, err := driver.MappingOf[E]()
	if err != nil {
		return nil, err
	}
	return &Repo[E]{
		db: db, table: cfg.Table, m: m,
		life: driver.NewLifecycle[E](m, time.Microsecond),
		sql:  build(db.Dialect(), cfg.Table, m, func(int) bool { return false }), lists: hasLists(db.Dialect(), m),
	}, nil
}

// Must returns r or panics with err.
func Must[E any](r *Repo[E], err error) *Repo[E] {
	if err != nil {
		panic(err)
	}
	return r
}

// fail says what was being done, and gives a violated constraint its type.
func (r *Repo[E]) fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	if constraint, fields, ok := sqldb.UniqueViolation(err); ok {
		err = &repository.UniqueError{Constraint: constraint, Fields: fields, Err: err}
	} else if sqldb.Unstorable(err) {
		err = fmt.Errorf("%w: %w", repository.ErrValue, err)
	}
	return fmt.Errorf("sqlrepo: %s %s: %w", doing, r.table, err)
}

// Create implements repository.Repository.
func (r *Repo[E]) Create(ctx context.Context, e E, then ...repository.WriteHook[E]) (E, error) {
	var zero E
	if len(then) == 0 {
		r.life.Init(&e)
		if err := r.insert(ctx, &e); err != nil {
			return zero, err
		}
		return e, nil
	}
	var out E
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		var err error
		if out, err = r.life.Clone(&e); err != nil { // each run of the transaction changes a copy of its own
			return err
		}
		r.life.Init(&out)
		if err := run(ctx, &out, then); err != nil {
			return err
		}
		return r.insert(ctx, &out)
	})
	if err != nil {
		return zero, err
	}
	return out, nil
}

func (r *Repo[E]) insert(ctx context.Context, e *E) error {
	args, err := r.args(ctx, e)
	if err != nil {
		return err
	}
	_, err = r.db.Querier(ctx).Exec(ctx, r.sql.insert, args...)
	return r.fail("create in", err)
}

func run[E any](ctx context.Context, e *E, then []repository.WriteHook[E]) error {
	for _, fn := range then {
		if err := fn(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// Get implements repository.Repository.
func (r *Repo[E]) Get(ctx context.Context, id string) (E, error) {
	return r.one(ctx, "get from", r.statements(ctx).get, id)
}

func (r *Repo[E]) one(ctx context.Context, doing, query, id string) (E, error) {
	var v version[E]
	err := r.load(ctx, doing, query, id, &v)
	return v.entity, err
}

// whole is one that keeps the text of JSON columns, for a write of the entity.
func (r *Repo[E]) whole(ctx context.Context, doing, query, id string) (*version[E], error) {
	v := &version[E]{raw: make([]string, len(r.m.Columns))}
	err := r.load(ctx, doing, query, id, v)
	return v, err
}

func (r *Repo[E]) load(ctx context.Context, doing, query, id string, v *version[E]) error {
	if !r.possible(id) {
		return r.missing(doing, id)
	}
	if err := r.read(ctx, query, id, v); err != nil {
		var zero E
		v.entity = zero
		if errors.Is(err, sqldb.ErrNoRows) || r.refuses(ctx, id) {
			return r.missing(doing, id)
		}
		return r.fail(doing, err)
	}
	r.life.Normalize(&v.entity)
	return nil
}

func (r *Repo[E]) missing(doing, id string) error {
	return fmt.Errorf("sqlrepo: %s %s %q: %w", doing, r.table, cut(id), repository.ErrNotFound)
}

func cut(id string) string { return id[:min(len(id), 64)] }

// GetMany implements repository.Repository.
func (r *Repo[E]) GetMany(ctx context.Context, ids []string) ([]E, error) {
	getMany := r.statements(ctx).getMany
	if r.db.Dialect() == sqldb.PostgreSQL {
		stored, _ := r.catalog(ctx) // an error will show in the statement itself
		if stored[r.m.Columns[r.m.ID].Name].typ == "uuid" {
			getMany = r.statements(ctx).getManyUUID
		}
	}
	ask := ids
	if slices.ContainsFunc(ids, func(id string) bool { return !r.possible(id) }) {
		ask = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !r.possible(id) })
	}
	if len(ask) == 0 {
		return nil, nil
	}
	list, err := json.Marshal(ask)
	if err != nil {
		return nil, fmt.Errorf("sqlrepo: get many from %s: %w", r.table, err)
	}
	found, err := r.query(ctx, getMany, sqldb.Replan, string(list))
	if err != nil {
		return nil, r.fail("get many from", err)
	}
	return r.life.InOrder(found, ids), nil
}

func (r *Repo[E]) query(ctx context.Context, query string, args ...any) (found []E, err error) {
	found, err = r.rows(ctx, query, args)
	if r.mayBeNull(ctx, err) {
		r.nulls.Store(true)
		found, err = r.rows(ctx, query, args)
	}
	return found, err
}

func (r *Repo[E]) rows(ctx context.Context, query string, args []any) (found []E, err error) {
	rows, err := r.db.Querier(ctx).Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var zero, e E
	targets, settle := r.scan(&e, nil)
	for rows.Next() {
		e = zero // what was decoded for the row before must not be decoded into
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		settle()
		r.life.Normalize(&e)
		found = append(found, e)
	}
	return found, rows.Err()
}

// Find implements repository.Repository.
func (r *Repo[E]) Find(ctx context.Context, q repository.Query[E]) (repository.Page[E], error) {
	p, err := q.Plan()
	if err != nil {
		return repository.Page[E]{}, err
	}
	w := r.where(ctx)
	query := r.statements(ctx).selects + " WHERE " + w.page(p) + w.order(p.Keys) + w.limit(p.Limit+1, p.Offset)
	if w.err != nil {
		return repository.Page[E]{}, w.err
	}
	found, err := r.query(ctx, query, w.args...)
	if err != nil {
		return repository.Page[E]{}, r.fail("find in", err)
	}
	page, next := driver.Page(p, found)
	return repository.Page[E]{Items: page, Next: next}, nil
}

// Each implements repository.Repository.
func (r *Repo[E]) Each(ctx context.Context, q repository.Query[E]) iter.Seq2[E, error] {
	return q.Pages(ctx, r.Find)
}

// Count implements repository.Repository.
func (r *Repo[E]) Count(ctx context.Context, filter repository.Filter[E]) (int64, error) {
	n, err := filter.Node()
	if err != nil {
		return 0, err
	}
	w := r.where(ctx)
	query := "SELECT count(*) FROM " + quoteTable(r.db.Dialect(), r.table) + " WHERE " + w.render(n)
	if w.err != nil {
		return 0, w.err
	}
	var count int64
	err = r.db.Querier(ctx).QueryRow(ctx, query, w.args...).Scan(&count)
	return count, r.fail("count in", err)
}

// Update implements repository.Repository. The row is locked while change runs, so that it seldom runs twice.
func (r *Repo[E]) Update(ctx context.Context, id string, change repository.WriteHook[E]) (E, error) {
	var out, zero E
	err := r.locked(ctx, "update in", id, func(ctx context.Context, before *version[E]) (err error) {
		if out, err = r.life.Clone(&before.entity); err != nil {
			return err
		}
		if err := change(ctx, &out); err != nil {
			return err
		}
		r.life.Touch(&out, &before.entity)
		return r.store(ctx, "update in", &out, before)
	})
	if err != nil {
		return zero, err
	}
	return out, nil
}

// locked runs fn with a row that is locked, in a transaction. A row that is not there has changed nothing: inside a
// transaction of the caller's, who may want to create it, that must not doom the whole.
func (r *Repo[E]) locked(ctx context.Context, doing, id string,
	fn func(ctx context.Context, v *version[E]) error) error {
	lock := func(ctx context.Context) (*version[E], error) { return r.whole(ctx, doing, r.statements(ctx).lock, id) }
	if _, err := r.db.Tx(ctx); err == nil {
		v, err := lock(ctx)
		if err != nil {
			return err
		}
		return r.db.InTx(ctx, func(ctx context.Context) error { return fn(ctx, v) })
	}
	return r.db.InTx(ctx, func(ctx context.Context) error {
		v, err := lock(ctx)
		if err != nil {
			return err
		}
		return fn(ctx, v)
	})
}

// Replace implements repository.Repository.
func (r *Repo[E]) Replace(ctx context.Context, e E) (E, error) {
	var zero E
	stored, err := r.whole(ctx, "replace in", r.statements(ctx).get, r.life.ID(&e))
	if err != nil {
		return zero, err
	}
	held := r.life.Version(&e)
	if actual := r.life.Version(&stored.entity); held != actual {
		return zero, r.fail("replace in", &repository.ConflictError{ID: r.life.ID(&e), Expected: held, Actual: actual})
	}
	r.life.Touch(&e, &stored.entity)
	if err := r.store(ctx, "replace in", &e, stored); err != nil {
		return zero, err
	}
	return e, nil
}

// store writes what changed between before and e, if the row still has the version of before: another version of the
// program may have columns, and fields in JSON, that this one does not know of.
func (r *Repo[E]) store(ctx context.Context, doing string, e *E, before *version[E]) error {
	columns, args, err := r.changes(ctx, e, before)
	if err != nil {
		return err
	}
	expected := r.life.Version(&before.entity)
	query := update(r.db.Dialect(), r.table, r.m, columns)
	n, err := r.db.Querier(ctx).Exec(ctx, query, append(args, r.life.ID(e), expected)...)
	if err != nil {
		return r.fail(doing, err)
	}
	if n == 1 {
		return nil
	}
	id := r.life.ID(e)
	now, err := r.one(ctx, doing, r.statements(ctx).get, id)
	if err != nil {
		return err
	}
	return r.fail(doing, &repository.ConflictError{ID: id, Expected: expected, Actual: r.life.Version(&now)})
}

// Delete implements repository.Repository.
func (r *Repo[E]) Delete(ctx context.Context, id string, then ...repository.WriteHook[E]) error {
	if len(then) == 0 {
		return r.remove(ctx, id)
	}
	return r.locked(ctx, "delete from", id, func(ctx context.Context, v *version[E]) error {
		if err := run(ctx, &v.entity, then); err != nil {
			return err
		}
		return r.remove(ctx, id)
	})
}

func (r *Repo[E]) remove(ctx context.Context, id string) error {
	if !r.possible(id) {
		return r.missing("delete from", id)
	}
	n, err := r.db.Querier(ctx).Exec(ctx, r.sql.delete, id)
	if err != nil {
		if r.refuses(ctx, id) {
			return r.missing("delete from", id)
		}
		return r.fail("delete from", err)
	}
	if n == 0 {
		return r.missing("delete from", id)
	}
	return nil
}
