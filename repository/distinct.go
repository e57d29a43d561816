package repository

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/sillar-go/sillar/repository/driver"
)

// Distinguishable is a field whose values Distinct lists: an OrdField, a TextField, a TimeField or a NullField.
type Distinguishable[E, V any] interface {
	Asc() Sort[E]
	above(v V) Filter[E]
}

func (f OrdField[E, V]) above(v V) Filter[E]       { return f.Gt(v) }
func (f TimeField[E]) above(t time.Time) Filter[E] { return f.After(t) }
func (f NullField[E, V]) above(v V) Filter[E]      { return f.Gt(v) }

// Distinct returns the values that a field has in the entities that match, each once, least first; NULL is none of
// them. Limit bounds them: 0 means DefaultLimit, more than MaxLimit is an error. Each value costs a query that reads
// one entity, so it is for fields with few values, and with an index. Entities that are written meanwhile may be missed
// outside a transaction that sees one state.
func Distinct[E, V any](
	ctx context.Context, r Reader[E], field Distinguishable[E, V], where Filter[E], limit int,
) ([]V, error) {
	if limit < 0 || limit > MaxLimit {
		return nil, &QueryError{fmt.Sprintf("limit %d is outside 1 to %d", limit, MaxLimit)}
	}
	m, err := driver.MappingOf[E]()
	if err != nil {
		return nil, err
	}
	key := field.Asc()
	null := Filter[E]{driver.Node{Op: driver.OpNull, Column: key.column}, key.err}
	next := Not(null)
	var values []V
	for range cmp.Or(limit, DefaultLimit) {
		page, err := r.Find(ctx, Query[E]{Where: where.And(next), Sort: []Sort[E]{key}, Limit: 1})
		if err != nil || len(page.Items) == 0 {
			return values, err
		}
		f := reflect.ValueOf(&page.Items[0]).Elem().FieldByIndex(m.Field(key.column).Index)
		v, ok := reflect.Indirect(f).Interface().(V)
		if !ok {
			return nil, &QueryError{fmt.Sprintf("the field %s holds no %s", m.Field(key.column).Name, reflect.TypeFor[V]())}
		}
		values = append(values, v)
		next = field.above(v)
	}
	return values, nil
}
