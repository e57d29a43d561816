package repository

import (
	"math"
	"reflect"
	"time"

	"github.com/sillar-go/sillar/repository/driver"
)

// NamedField is a field found by its stored name: for sort orders and filters that clients choose.
type NamedField[E any] struct {
	c    column[E]
	kind driver.Kind
}

// Named returns the field with the stored name, address.city for one inside JSON, or a *FieldError: a name from outside
// never reaches a database.
func Named[E any](name string) (NamedField[E], error) {
	m, err := driver.MappingOf[E]()
	if err != nil {
		return NamedField[E]{}, err
	}
	i, ok := m.Find(name)
	if !ok {
		return NamedField[E]{}, &FieldError{Field: name[:min(len(name), 64)], Reason: "is unknown"}
	}
	if m.Field(i).Kind == driver.KindJSON {
		return NamedField[E]{}, &FieldError{Field: name, Reason: "is stored as JSON and cannot be searched"}
	}
	return NamedField[E]{column[E]{at: i}, m.Field(i).Kind}, nil
}

// Eq selects entities whose field equals v, or gives a *FieldError where v has another type than the field.
func (f NamedField[E]) Eq(v any) (Filter[E], error) {
	if v == nil || driver.KindOf(reflect.TypeOf(driver.Normal(v))) != f.kind {
		return Filter[E]{}, &FieldError{Reason: "the value has another type than the field"}
	}
	return f.c.node(driver.OpEq, v), nil
}

// Where selects by an operator and a value as text, such as those of a query string: eq, ne, lt, lte, gt, gte, and
// prefix, contains and icontains for text. Times are RFC 3339, bytes are base64. Another operator, or a value that is
// none of the field's, is a *FieldError.
func (f NamedField[E]) Where(operator, value string) (Filter[E], error) {
	m, err := driver.MappingOf[E]()
	if err != nil {
		return Filter[E]{}, err
	}
	bad := func(reason string) (Filter[E], error) {
		return Filter[E]{}, &FieldError{Field: m.Field(f.c.at).Name, Reason: reason}
	}
	op, known := map[string]driver.Op{
		"eq": driver.OpEq, "ne": driver.OpNe, "lt": driver.OpLt, "lte": driver.OpLte, "gt": driver.OpGt, "gte": driver.OpGte,
		"prefix": driver.OpPrefix, "contains": driver.OpContains, "icontains": driver.OpContainsFold,
	}[operator]
	switch {
	case !known:
		return bad("has no such operator")
	case op >= driver.OpPrefix && f.kind != driver.KindString:
		return bad("is no text")
	}
	if f.kind == driver.KindTime {
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return bad("wants a time of RFC 3339")
		}
		return f.c.node(op, t), nil
	}
	v, err := m.Field(f.c.at).Parse(value)
	if x, ok := v.(float64); err != nil || ok && math.IsNaN(x) {
		return bad("wants another type of value")
	}
	return f.c.node(op, v), nil
}

// Kind is the kind of the field.
func (f NamedField[E]) Kind() driver.Kind { return f.kind }

// Asc sorts by the field, least first.
func (f NamedField[E]) Asc() Sort[E] { return f.c.sort(false) }

// Desc sorts by the field, greatest first.
func (f NamedField[E]) Desc() Sort[E] { return f.c.sort(true) }
