package driver

import (
	"bytes"
	"fmt"
	"reflect"
	"time"

	"github.com/sillar-go/sillar/internal/id"
)

// Lifecycle sets the fields that a Repository owns, and copies entities.
type Lifecycle[E any] struct {
	m         *Mapping
	precision time.Duration
	times     []Column
}

// NewLifecycle returns the Lifecycle of a mapping whose times are cut to precision.
func NewLifecycle[E any](m *Mapping, precision time.Duration) Lifecycle[E] {
	l := Lifecycle[E]{m: m, precision: precision}
	for _, c := range m.Columns {
		if c.Kind == KindTime && !c.Valuer {
			l.times = append(l.times, c)
		}
	}
	return l
}

// Init makes e a new entity: ID where it is empty, Version 1, and the times.
func (l Lifecycle[E]) Init(e *E) {
	v := reflect.ValueOf(e).Elem()
	if l.ID(e) == "" {
		l.field(v, l.m.ID).SetString(id.New())
	}
	l.field(v, l.m.Version).SetInt(1)
	now := time.Now()
	*l.time(v, l.m.CreatedAt), *l.time(v, l.m.UpdatedAt) = now, now
	l.Normalize(e)
}

// Import makes e an entity that keeps what is set of ID, Version and times; now is the time of others.
func (l Lifecycle[E]) Import(e *E, now time.Time) {
	v := reflect.ValueOf(e).Elem()
	if l.ID(e) == "" {
		l.field(v, l.m.ID).SetString(id.New())
	}
	if l.Version(e) <= 0 {
		l.field(v, l.m.Version).SetInt(1)
	}
	for _, column := range []int{l.m.CreatedAt, l.m.UpdatedAt} {
		if t := l.time(v, column); t.IsZero() {
			*t = now
		}
	}
	l.Normalize(e)
}

// Identify sets the ID of a new entity where it is empty.
func (l Lifecycle[E]) Identify(e *E, id string) {
	if l.ID(e) == "" {
		l.field(reflect.ValueOf(e).Elem(), l.m.ID).SetString(id)
	}
}

// Touch makes e the next version of before.
func (l Lifecycle[E]) Touch(e, before *E) {
	v, b := reflect.ValueOf(e).Elem(), reflect.ValueOf(before).Elem()
	l.field(v, l.m.ID).SetString(l.ID(before))
	l.field(v, l.m.Version).SetInt(l.Version(before) + 1)
	*l.time(v, l.m.CreatedAt), *l.time(v, l.m.UpdatedAt) = *l.time(b, l.m.CreatedAt), time.Now()
	l.Normalize(e)
}

// Normalize brings every time to UTC and cuts it to the precision, without its monotonic part.
func (l Lifecycle[E]) Normalize(e *E) {
	v := reflect.ValueOf(e).Elem()
	for _, c := range l.times {
		switch t := v.FieldByIndex(c.Index).Addr().Interface().(type) {
		case *time.Time:
			*t = l.cut(*t)
		case **time.Time:
			if *t != nil {
				cut := l.cut(**t)
				*t = &cut
			}
		}
	}
}

// CheckTimes returns the error of Encode for the first time in a list that cannot be stored.
func (l Lifecycle[E]) CheckTimes(list []E) error {
	for i := range list {
		v := reflect.ValueOf(&list[i]).Elem()
		for _, c := range l.times {
			if _, err := c.Encode(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut is t.UTC().Truncate for a precision that divides a second, which is cheaper: most times need no cut.
func (l Lifecycle[E]) cut(t time.Time) time.Time {
	t = t.UTC() // also without its monotonic part
	if l.precision > 0 {
		if over := time.Duration(t.Nanosecond()) % l.precision; over > 0 {
			t = t.Add(-over)
		}
	}
	return t
}

// ID returns the entity's id.
func (l Lifecycle[E]) ID(e *E) string {
	return l.field(reflect.ValueOf(e).Elem(), l.m.ID).String()
}

// InOrder returns the entities in the order of their ids; ids without an entity are passed over.
func (l Lifecycle[E]) InOrder(found []E, ids []string) []E {
	byID := make(map[string]int, len(found))
	for i := range found {
		byID[l.ID(&found[i])] = i
	}
	out := make([]E, 0, len(found))
	for _, id := range ids {
		if i, ok := byID[id]; ok {
			out = append(out, found[i])
		}
	}
	return out
}

// Version returns the entity's version.
func (l Lifecycle[E]) Version(e *E) int64 {
	return l.field(reflect.ValueOf(e).Elem(), l.m.Version).Int()
}

func (l Lifecycle[E]) time(v reflect.Value, column int) *time.Time {
	return l.field(v, column).Addr().Interface().(*time.Time)
}

func (l Lifecycle[E]) field(v reflect.Value, column int) reflect.Value {
	return v.FieldByIndex(l.m.Columns[column].Index)
}

// Clone returns a copy of e that shares no memory with it as far as it is mapped: unmapped fields are copied flat.
func (l Lifecycle[E]) Clone(e *E) (E, error) {
	out := *e
	from, to := reflect.ValueOf(e).Elem(), reflect.ValueOf(&out).Elem()
	for _, c := range l.m.Columns {
		f, t := from.FieldByIndex(c.Index), to.FieldByIndex(c.Index)
		switch {
		case c.Kind == KindJSON || c.Valuer:
			stored, err := c.Encode(from)
			if err == nil {
				err = c.Decode(to, stored)
			}
			if err != nil {
				return out, fmt.Errorf("repository: copy column %s: %w", c.Name, err)
			}
		case c.Nullable && !f.IsNil():
			p := reflect.New(f.Type().Elem())
			p.Elem().Set(f.Elem())
			if c.Kind == KindBytes {
				p.Elem().SetBytes(bytes.Clone(f.Elem().Bytes()))
			}
			t.Set(p)
		case c.Kind == KindBytes && !c.Nullable:
			t.SetBytes(bytes.Clone(f.Bytes()))
		}
	}
	return out, nil
}
