package sqlrepo

import (
	"encoding/json"
	"fmt"
	"math"
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
		if c.Kind == repository.KindJSON {
			f := v.FieldByIndex(c.Index)
			if c.Nullable && f.IsNil() {
				continue
			}
			body, err := json.Marshal(f.Interface())
			if err != nil {
				return nil, fmt.Errorf("sqlrepo: encode column %s of %s: %w", c.Name, r.table, err)
			}
			args[i] = string(body)
			continue
		}
		x := c.Value(v)
		if f, ok := x.(float64); ok && math.IsNaN(f) && r.db.Dialect() == sqldb.SQLite { // it would store NULL
			return nil, fmt.Errorf("sqlrepo: column %s of %s: %w: NaN", c.Name, r.table, repository.ErrValue)
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
		switch {
		case c.Kind == repository.KindJSON:
			p = jsonTarget{p}
		case c.Kind == repository.KindTime && r.db.Dialect() == sqldb.SQLite:
			p = microsTarget{p}
		}
		targets[i] = p
	}
	return targets
}

// jsonTarget decodes JSON text into what p points to; NULL leaves the zero value.
type jsonTarget struct{ p any }

func (t jsonTarget) Scan(src any) error {
	switch s := src.(type) {
	case nil:
		return nil
	case string:
		return json.Unmarshal([]byte(s), t.p)
	case []byte:
		return json.Unmarshal(s, t.p)
	}
	return fmt.Errorf("sqlrepo: JSON column holds a %T", src)
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
