package repository

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/sillar-go/sillar/repository/driver"
)

// Filter selects entities of type E. The zero Filter selects all. Fields make filters.
type Filter[E any] struct {
	n   driver.Node
	err error
}

// And selects what f and all others select.
func (f Filter[E]) And(others ...Filter[E]) Filter[E] { return combine(driver.OpAnd, f, others) }

// Or selects what f or one of the others selects.
func (f Filter[E]) Or(others ...Filter[E]) Filter[E] { return combine(driver.OpOr, f, others) }

// Not selects what f does not select, NULL included.
func Not[E any](f Filter[E]) Filter[E] {
	return Filter[E]{driver.Node{Op: driver.OpNot, Kids: []driver.Node{f.n}}, f.err}
}

func combine[E any](op driver.Op, f Filter[E], others []Filter[E]) Filter[E] {
	kids := []driver.Node{f.n}
	for _, o := range others {
		kids = append(kids, o.n)
		if f.err == nil {
			f.err = o.err
		}
	}
	return Filter[E]{driver.Node{Op: op, Kids: kids}, f.err}
}

// Node returns the tree, or the first error in it. It is for adapters.
func (f Filter[E]) Node() (driver.Node, error) { return f.n, f.err }

// Assignment sets a field of entities of type E to a value. Fields make assignments.
type Assignment[E any] struct {
	column int
	value  any
	err    error
}

// Assignments checks what UpdateWhere sets, and returns it by column. It is for adapters.
func Assignments[E any](set []Assignment[E]) (map[int]any, error) {
	m, err := driver.MappingOf[E]()
	if err != nil {
		return nil, err
	}
	if len(set) == 0 {
		return nil, &QueryError{Reason: "UpdateWhere needs something to set"}
	}
	values := map[int]any{}
	for _, a := range set {
		if a.err != nil {
			return nil, a.err
		}
		c := m.Field(a.column)
		if err := driver.Storable(a.value); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		if c.Path != nil {
			return nil, &FieldError{Field: c.Name, Reason: "is inside JSON, which Update changes"}
		}
		if a.column == m.ID || a.column == m.Version || a.column == m.CreatedAt || a.column == m.UpdatedAt {
			return nil, &FieldError{Field: c.Name, Reason: "is not for callers to set"}
		}
		values[a.column] = a.value
	}
	return values, nil
}

func (c column[E]) to(v any) Assignment[E] { return Assignment[E]{c.at, driver.Normal(v), c.err} }

// Sort is a sort key. Fields make sorts.
type Sort[E any] struct {
	column int
	desc   bool
	err    error
}

// column is a field of E, found by where its accessor points.
type column[E any] struct {
	at  int
	err error
}

func (c column[E]) node(op driver.Op, v any) Filter[E] {
	return Filter[E]{driver.Node{Op: op, Column: c.at, Value: driver.Normal(v)}, c.err}
}

// MaxValues is the number of values that one In takes, so that no list reaches a driver's limit of arguments.
const MaxValues = 1000

func (c column[E]) in(vs []any) Filter[E] {
	if len(vs) > MaxValues && c.err == nil {
		c.err = &QueryError{Reason: fmt.Sprintf("In takes at most %d values", MaxValues)}
	}
	for i, v := range vs {
		vs[i] = driver.Normal(v)
	}
	return Filter[E]{driver.Node{Op: driver.OpIn, Column: c.at, Values: vs}, c.err}
}

func (c column[E]) sort(desc bool) Sort[E] { return Sort[E]{c.at, desc, c.err} }

// find finds the mapped field that an accessor points to. The error waits for the query that uses the field, so that
// fields can be package variables.
func find[E, V any](get func(*E) *V) column[E] {
	c, field := locate(get)
	if c.err == nil && field.Kind == driver.KindJSON {
		c.err = &FieldError{Field: field.Name, Reason: "is stored as JSON and cannot be searched"}
	}
	return c
}

func locate[E, V any](get func(*E) *V) (column[E], driver.Column) {
	m, err := driver.MappingOf[E]()
	if err != nil {
		return column[E]{err: err}, driver.Column{}
	}
	e := new(E)
	p := reflect.ValueOf(get(e))
	if at, ok := m.Locate(reflect.ValueOf(e).Elem(), p); ok {
		return column[E]{at: at}, m.Field(at)
	}
	return column[E]{err: &FieldError{Field: p.Type().Elem().String(),
		Reason: "the accessor points to no field that is mapped, or that can be searched inside JSON"}}, driver.Column{}
}

// EqField is a field that can be compared for equality.
type EqField[E any, V comparable] struct{ c column[E] }

// Eq makes a field of an accessor.
func Eq[E any, V comparable](get func(*E) *V) EqField[E, V] { return EqField[E, V]{find(get)} }

// Eq selects entities whose field equals v.
func (f EqField[E, V]) Eq(v V) Filter[E] { return f.c.node(driver.OpEq, v) }

// Ne selects entities whose field differs from v.
func (f EqField[E, V]) Ne(v V) Filter[E] { return f.c.node(driver.OpNe, v) }

// In selects entities whose field equals one of vs; none of them when vs is empty.
func (f EqField[E, V]) In(vs ...V) Filter[E] {
	list := make([]any, len(vs))
	for i, v := range vs {
		list[i] = v
	}
	return f.c.in(list)
}

// To sets the field to v.
func (f EqField[E, V]) To(v V) Assignment[E] { return f.c.to(v) }

// OrdField is a field with an order: text by its bytes, numbers by their value.
type OrdField[E any, V cmp.Ordered] struct{ EqField[E, V] }

// Ord makes a field of an accessor.
func Ord[E any, V cmp.Ordered](get func(*E) *V) OrdField[E, V] { return OrdField[E, V]{Eq(get)} }

// Lt selects entities whose field is less than v.
func (f OrdField[E, V]) Lt(v V) Filter[E] { return f.c.node(driver.OpLt, v) }

// Lte selects entities whose field is at most v.
func (f OrdField[E, V]) Lte(v V) Filter[E] { return f.c.node(driver.OpLte, v) }

// Gt selects entities whose field is greater than v.
func (f OrdField[E, V]) Gt(v V) Filter[E] { return f.c.node(driver.OpGt, v) }

// Gte selects entities whose field is at least v.
func (f OrdField[E, V]) Gte(v V) Filter[E] { return f.c.node(driver.OpGte, v) }

// Asc sorts by the field, least first.
func (f OrdField[E, V]) Asc() Sort[E] { return f.c.sort(false) }

// Desc sorts by the field, greatest first.
func (f OrdField[E, V]) Desc() Sort[E] { return f.c.sort(true) }

// TextField is a field of text.
type TextField[E any, V ~string] struct{ OrdField[E, V] }

// Text makes a field of an accessor.
func Text[E any, V ~string](get func(*E) *V) TextField[E, V] { return TextField[E, V]{Ord(get)} }

// HasPrefix selects entities whose field begins with prefix, case and all.
func (f TextField[E, V]) HasPrefix(prefix string) Filter[E] { return f.c.node(driver.OpPrefix, prefix) }

// Contains selects entities whose field contains part, case and all. It reads all that the rest of the filter selects.
func (f TextField[E, V]) Contains(part string) Filter[E] { return f.c.node(driver.OpContains, part) }

// ContainsFold is Contains for which ASCII letters match in either case.
func (f TextField[E, V]) ContainsFold(part string) Filter[E] {
	return f.c.node(driver.OpContainsFold, part)
}

// TimeField is a field that holds a time.
type TimeField[E any] struct{ c column[E] }

// Time makes a field of an accessor.
func Time[E any](get func(*E) *time.Time) TimeField[E] { return TimeField[E]{find(get)} }

// Eq selects entities whose field is the instant t.
func (f TimeField[E]) Eq(t time.Time) Filter[E] { return f.c.node(driver.OpEq, t) }

// Before selects entities whose field is before t.
func (f TimeField[E]) Before(t time.Time) Filter[E] { return f.c.node(driver.OpLt, t) }

// Since selects entities whose field is t or after it.
func (f TimeField[E]) Since(t time.Time) Filter[E] { return f.c.node(driver.OpGte, t) }

// After selects entities whose field is after t.
func (f TimeField[E]) After(t time.Time) Filter[E] { return f.c.node(driver.OpGt, t) }

// Ne selects entities whose field is another instant than t.
func (f TimeField[E]) Ne(t time.Time) Filter[E] { return f.c.node(driver.OpNe, t) }

// Until selects entities whose field is t or before it.
func (f TimeField[E]) Until(t time.Time) Filter[E] { return f.c.node(driver.OpLte, t) }

// To sets the field to t.
func (f TimeField[E]) To(t time.Time) Assignment[E] { return f.c.to(t) }

// Asc sorts by the field, earliest first.
func (f TimeField[E]) Asc() Sort[E] { return f.c.sort(false) }

// Desc sorts by the field, latest first.
func (f TimeField[E]) Desc() Sort[E] { return f.c.sort(true) }

// NullField is a field that may be NULL: a pointer.
type NullField[E, V any] struct{ c column[E] }

// Null makes a field of an accessor.
func Null[E, V any](get func(*E) **V) NullField[E, V] { return NullField[E, V]{find(get)} }

// IsNull selects entities whose field is NULL.
func (f NullField[E, V]) IsNull() Filter[E] {
	return Filter[E]{driver.Node{Op: driver.OpNull, Column: f.c.at}, f.c.err}
}

// NotNull selects entities whose field is not NULL.
func (f NullField[E, V]) NotNull() Filter[E] { return Not(f.IsNull()) }

// Eq selects entities whose field equals v.
func (f NullField[E, V]) Eq(v V) Filter[E] { return f.c.node(driver.OpEq, v) }

// Lt selects entities whose field is less than v; NULL is not.
func (f NullField[E, V]) Lt(v V) Filter[E] { return f.c.node(driver.OpLt, v) }

// Lte selects entities whose field is at most v; NULL is not.
func (f NullField[E, V]) Lte(v V) Filter[E] { return f.c.node(driver.OpLte, v) }

// Gte selects entities whose field is at least v; NULL is not.
func (f NullField[E, V]) Gte(v V) Filter[E] { return f.c.node(driver.OpGte, v) }

// Ne selects entities whose field differs from v; NULL does not.
func (f NullField[E, V]) Ne(v V) Filter[E] { return f.c.node(driver.OpNe, v) }

// In selects entities whose field equals one of vs; none of them when vs is empty.
func (f NullField[E, V]) In(vs ...V) Filter[E] {
	list := make([]any, len(vs))
	for i, v := range vs {
		list[i] = v
	}
	return f.c.in(list)
}

// To sets the field to v, or to NULL where v is nil.
func (f NullField[E, V]) To(v *V) Assignment[E] {
	if v == nil {
		return Assignment[E]{f.c.at, nil, f.c.err}
	}
	return f.c.to(*v)
}

// Gt selects entities whose field is greater than v; NULL is not.
func (f NullField[E, V]) Gt(v V) Filter[E] { return f.c.node(driver.OpGt, v) }

// Asc sorts by the field, NULL first.
func (f NullField[E, V]) Asc() Sort[E] { return f.c.sort(false) }

// Desc sorts by the field, NULL last.
func (f NullField[E, V]) Desc() Sort[E] { return f.c.sort(true) }

// ListField is a field that is a list: a slice of text, booleans, numbers, or types that are text in JSON.
type ListField[E, V any] struct{ c column[E] }

// List makes a field of an accessor.
func List[E any, S ~[]V, V any](get func(*E) *S) ListField[E, V] {
	c, field := locate(get)
	if _, ok := field.Element(); c.err == nil && !ok {
		c.err = &FieldError{Field: field.Name, Reason: "is no list of text, booleans or numbers"}
	}
	return ListField[E, V]{c}
}

// Contains selects entities whose list has an element that equals v.
func (f ListField[E, V]) Contains(v V) Filter[E] {
	element, err := driver.Element(v)
	switch {
	case f.c.err != nil:
		return Filter[E]{err: f.c.err}
	case errors.Is(err, ErrValue): // no list holds it
		return Filter[E]{n: driver.Node{Op: driver.OpOr}}
	case err != nil:
		return Filter[E]{err: &QueryError{Reason: "an element is neither text nor boolean nor number"}}
	}
	return f.c.node(driver.OpElement, element)
}
