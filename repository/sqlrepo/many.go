package sqlrepo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// CreateMany implements repository.Repository. On PostgreSQL it is one COPY, which tables with row-level security
// refuse.
func (r *Repo[E]) CreateMany(ctx context.Context, list []E) ([]E, error) {
	out := slices.Clone(list)
	r.findArrays(ctx)
	now := time.Now()
	for i := range out {
		r.life.Import(&out[i], now)
	}
	if len(out) == 0 {
		return out, nil
	}
	row, err := r.rowOf(out)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(r.m.Columns))
	for i, c := range r.m.Columns {
		names[i] = c.Name
	}
	if err := r.db.InsertMany(ctx, r.table, names, r.sql.insert, len(out), row); err != nil {
		return nil, r.fail("create in", err)
	}
	return out, nil
}

// rowOf returns the values of each entity of a list. They are converted while those before are on their way to the
// database, where no value can be refused; else all of them before anything is sent.
func (r *Repo[E]) rowOf(list []E) (func(i int) []any, error) {
	if err := r.life.CheckTimes(list); err != nil {
		return nil, fmt.Errorf("sqlrepo: create in %s: %w", r.table, err)
	}
	columns := len(r.m.Columns)
	if !slices.ContainsFunc(r.m.Columns, driver.Column.Refuses) {
		values := make([]any, columns)
		return func(i int) []any {
			_ = r.encode(&list[i], values) // refuses nothing
			return values
		}, nil
	}
	values := make([]any, len(list)*columns)
	for i := range list {
		if err := r.encode(&list[i], values[i*columns:(i+1)*columns]); err != nil {
			return nil, err
		}
	}
	return func(i int) []any { return values[i*columns : (i+1)*columns] }, nil
}

// Put implements repository.Repository.
func (r *Repo[E]) Put(ctx context.Context, e E) (E, error) {
	var zero E
	r.life.Init(&e)
	args, err := r.args(ctx, &e)
	if err != nil {
		return zero, err
	}
	var v version[E]
	if err := r.row(ctx, r.statements(ctx).put, &v, args...); err != nil {
		return zero, r.fail("put in", err)
	}
	r.life.Normalize(&v.entity)
	return v.entity, nil
}

// UpdateWhere implements repository.Repository.
func (r *Repo[E]) UpdateWhere(
	ctx context.Context, filter repository.Filter[E], set ...repository.Assignment[E],
) (int64, error) {
	values, err := repository.Assignments(set)
	if err != nil {
		return 0, err
	}
	n, err := filter.Node()
	if err != nil {
		return 0, err
	}
	w := r.where(ctx)
	name := func(i int) string { return quote(w.dialect, r.m.Columns[i].Name) }
	sets := []string{name(r.m.Version) + " = " + name(r.m.Version) + " + 1",
		name(r.m.UpdatedAt) + " = " + w.arg(time.Now().UTC().Truncate(time.Microsecond))}
	for i := range r.m.Columns { // in one order, for the cache of statements
		if v, ok := values[i]; ok {
			sets = append(sets, name(i)+" = "+w.arg(v))
		}
	}
	query := "UPDATE " + quoteTable(w.dialect, r.table) + " SET " + strings.Join(sets, ", ") + " WHERE " + w.render(n)
	return r.execWhere(ctx, "update in", w, query)
}

// DeleteWhere implements repository.Repository.
func (r *Repo[E]) DeleteWhere(ctx context.Context, filter repository.Filter[E]) (int64, error) {
	n, err := filter.Node()
	if err != nil {
		return 0, err
	}
	w := r.where(ctx)
	return r.execWhere(ctx, "delete from", w, "DELETE FROM "+quoteTable(w.dialect, r.table)+" WHERE "+w.render(n))
}

func (r *Repo[E]) execWhere(ctx context.Context, doing string, w *where, query string) (int64, error) {
	if w.err != nil {
		return 0, w.err
	}
	affected, err := r.db.Querier(ctx).Exec(ctx, query, append([]any{sqldb.Replan}, w.args...)...)
	if err != nil {
		return 0, r.fail(doing, fmt.Errorf("by filter: %w", err))
	}
	return affected, nil
}
