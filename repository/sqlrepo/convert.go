package sqlrepo

import (
	"fmt"
	"reflect"
	"time"

	"github.com/sillar-go/sillar/repository"
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
func (r *Repo[E]) args(e *E) ([]any, error) {
	r.life.Normalize(e)
	v := reflect.ValueOf(e).Elem()
	args := make([]any, len(r.m.Columns), len(r.m.Columns)+1)
	for i, c := range r.m.Columns {
		x, err := c.Encode(v)
		if err != nil {
			return nil, fmt.Errorf("sqlrepo: write %s: %w", r.table, err)
		}
		args[i] = value(r.db.Dialect(), x)
	}
	return args, nil
}

// targets returns where to scan all columns to.
func (r *Repo[E]) targets(e *E) []any {
	v := reflect.ValueOf(e).Elem()
	targets := make([]any, len(r.m.Columns))
	for i, c := range r.m.Columns {
		p := v.FieldByIndex(c.Index).Addr().Interface()
		micros := c.Kind == repository.KindTime && r.db.Dialect() == sqldb.SQLite
		switch {
		case c.Kind == repository.KindJSON, c.Kind == repository.KindBytes, c.Valuer:
			p = columnTarget{c, v, micros}
		case micros:
			p = microsTarget{p}
		}
		targets[i] = p
	}
	return targets
}

// columnTarget decodes what drivers do not: JSON, bytes that may be NULL, and the types of sql.Scanner.
type columnTarget struct {
	c      repository.Column
	entity reflect.Value
	micros bool // times are integers
}

// Scan implements sql.Scanner.
func (t columnTarget) Scan(src any) error {
	if us, ok := src.(int64); ok && t.micros {
		src = time.UnixMicro(us).UTC()
	}
	return t.c.Decode(t.entity, src)
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
