package sqlrepo

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/sillar-go/sillar/repository/driver"
	"github.com/sillar-go/sillar/repository/internal/jsonmerge"
	"github.com/sillar-go/sillar/repository/sqldb"
)

// value brings a value to what the database stores.
func value(d sqldb.Dialect, v any) any {
	if t, ok := v.(time.Time); ok && d == sqldb.SQLite {
		return t.UnixMicro()
	}
	return v
}

// args returns the values of all columns.
func (r *Repo[E]) args(ctx context.Context, e *E) ([]any, error) {
	r.findArrays(ctx)
	r.life.Normalize(e)
	args := make([]any, len(r.m.Columns), len(r.m.Columns)+1)
	return args, r.encode(e, args)
}

// encode puts the values of all columns of an entity, whose times are normal, into args.
func (r *Repo[E]) encode(e *E, args []any) error {
	v := reflect.ValueOf(e).Elem()
	for i := range r.m.Columns {
		x, err := r.m.Columns[i].Encode(v)
		if err != nil {
			return fmt.Errorf("sqlrepo: write %s: %w", r.table, err)
		}
		if text, ok := x.(string); ok && r.isArray(i) {
			if x, err = arrayOf(text); err != nil {
				return fmt.Errorf("sqlrepo: write %s: column %s: %w", r.table, r.m.Columns[i].Name, err)
			}
		}
		args[i] = value(r.db.Dialect(), x)
	}
	return nil
}

// scan returns where to scan all columns to, and a function to call after each row. raw, where it is not nil, gets the
// text of JSON columns by their place. A repo that has met NULL in a column that no pointer takes scans to pointers.
func (r *Repo[E]) scan(e *E, raw []string) (targets []any, settle func()) {
	v := reflect.ValueOf(e).Elem()
	targets = make([]any, len(r.m.Columns))
	settle = func() {}
	var nulls []nullTarget
	tolerant := r.nulls.Load()
	for i, c := range r.m.Columns {
		f := v.FieldByIndex(c.Index)
		p := f.Addr().Interface()
		micros := c.Kind == driver.KindTime && r.db.Dialect() == sqldb.SQLite
		switch {
		case c.Kind == driver.KindJSON && raw != nil:
			p = columnTarget{c, v, micros, &raw[i]}
		case c.Kind == driver.KindJSON, c.Kind == driver.KindBytes, c.Valuer:
			p = columnTarget{c, v, micros, nil}
		case micros:
			p = microsTarget{p}
		case tolerant && !c.Nullable:
			at := reflect.New(reflect.PointerTo(f.Type()))
			nulls = append(nulls, nullTarget{f, at.Elem()})
			p = at.Interface()
		}
		targets[i] = p
	}
	if len(nulls) > 0 {
		settle = func() {
			for _, n := range nulls {
				n.field.SetZero()
				if !n.scanned.IsNil() {
					n.field.Set(n.scanned.Elem())
				}
			}
		}
	}
	return targets, settle
}

// nullTarget is a field and the pointer that was scanned in its place.
type nullTarget struct{ field, scanned reflect.Value }

// columnTarget decodes what drivers do not: JSON, bytes that may be NULL, and the types of sql.Scanner.
type columnTarget struct {
	c      driver.Column
	entity reflect.Value
	micros bool // times are integers
	raw    *string
}

// Scan implements sql.Scanner.
func (t columnTarget) Scan(src any) error {
	if us, ok := src.(int64); ok && t.micros {
		src = time.UnixMicro(us).UTC()
	}
	if t.raw != nil {
		*t.raw = ""
		switch text := src.(type) {
		case string:
			*t.raw = text
		case []byte:
			*t.raw = string(text)
		}
	}
	return t.c.Decode(t.entity, fromArray(t.c, src))
}

// microsTarget turns integer microseconds since 1970 into a time.
type microsTarget struct{ p any } // *time.Time or **time.Time

func (t microsTarget) Scan(src any) error {
	us, ok := src.(int64)
	if src != nil && !ok {
		return fmt.Errorf("sqlrepo: time column holds a %T, want integer microseconds", src)
	}
	at := time.UnixMicro(us).UTC()
	switch p := t.p.(type) {
	case *time.Time:
		if src != nil {
			*p = at
		}
	case **time.Time:
		*p = nil
		if src != nil {
			own := at
			*p = &own
		}
	}
	return nil
}

// version is an entity as it was read, with the text of its JSON columns.
type version[E any] struct {
	entity E
	raw    []string
}

// read scans a row of a query that may run again: where a column is NULL that no pointer takes, because the row is
// older than the column, it is scanned to pointers, and NULL reads as the zero value.
func (r *Repo[E]) read(ctx context.Context, query, id string, v *version[E]) error {
	err := r.row(ctx, query, v, id)
	if r.mayBeNull(ctx, err) {
		r.nulls.Store(true)
		err = r.row(ctx, query, v, id)
	}
	return err
}

// row scans the row of a statement.
func (r *Repo[E]) row(ctx context.Context, query string, v *version[E], args ...any) error {
	targets, settle := r.scan(&v.entity, v.raw)
	if err := r.db.Querier(ctx).QueryRow(ctx, query, args...).Scan(targets...); err != nil {
		return err
	}
	settle()
	return nil
}

// mayBeNull reports whether an error may come from scanning NULL, which is worth another look.
func (r *Repo[E]) mayBeNull(ctx context.Context, err error) bool {
	return err != nil && !r.nulls.Load() && ctx.Err() == nil && strings.Contains(err.Error(), "NULL")
}

// changes returns the columns in which the values of two versions of an entity differ, and version and time, with
// their arguments. JSON keeps what this version of the program does not know of.
func (r *Repo[E]) changes(ctx context.Context, e *E, before *version[E]) (columns []int, args []any, err error) {
	is, err := r.args(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	was, werr := r.args(ctx, &before.entity)
	for i, c := range r.m.Columns {
		owned := i == r.m.Version || i == r.m.UpdatedAt
		if i == r.m.ID || !owned && werr == nil && reflect.DeepEqual(is[i], was[i]) {
			continue
		}
		if text, ok := is[i].(string); ok && c.Kind == driver.KindJSON && !c.Valuer && werr == nil && !r.isArray(i) {
			old, _ := was[i].(string)
			is[i] = jsonmerge.Merge(before.raw[i], old, text)
		}
		columns, args = append(columns, i), append(args, is[i])
	}
	return columns, args, nil
}
