package driver

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sillar-go/sillar/internal/jsoncheck"
)

// Field returns the column at a place that a Node or a Key names: one of Columns, or behind them a field inside a
// struct that is stored as JSON.
func (m *Mapping) Field(i int) Column {
	if i < len(m.Columns) {
		return m.Columns[i]
	}
	return m.nested[i-len(m.Columns)]
}

// Find returns the place of the column with the name, or of the field with a name such as address.city.
func (m *Mapping) Find(name string) (int, bool) {
	if i, ok := m.byName[name]; ok {
		return i, true
	}
	i := slices.IndexFunc(m.nested, func(c Column) bool { return c.Name == name })
	return len(m.Columns) + i, i >= 0
}

// Locate returns the place of the field of an entity that p points to.
func (m *Mapping) Locate(entity, p reflect.Value) (int, bool) {
	for i := range len(m.Columns) + len(m.nested) {
		f := entity.FieldByIndex(m.Field(i).Index)
		if f.Type() == p.Type().Elem() && !p.IsNil() && f.Addr().Pointer() == p.Pointer() {
			return i, true
		}
	}
	return 0, false
}

// nest finds the fields inside structs that are stored as JSON which every database finds there too.
func (m *Mapping) nest() {
	for i, c := range m.Columns {
		if c.Kind == KindJSON && !c.Valuer && isGroup(c.Type) {
			m.nested = nestIn(m.nested, Column{Name: c.Name, Index: c.Index, In: i}, c.Type, false)
		}
	}
}

// isGroup reports whether encoding/json makes an object of the fields of a type.
func isGroup(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !encodes(t) && !encodes(reflect.PointerTo(t))
}

// nestIn adds the fields of a struct at the path of outer. omitted says that the struct is left out where it is zero: a
// field of it is then NULL in the database, and only a pointer tells NULL from zero.
func nestIn(all []Column, outer Column, t reflect.Type, omitted bool) []Column {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
		c := Column{Name: outer.Name, Path: outer.Path, In: outer.In, Type: f.Type,
			Index: append(slices.Clip(outer.Index), i)}
		if f.Anonymous && name == "" && isGroup(f.Type) {
			all = nestIn(all, c, f.Type, omitted)
			continue
		}
		if name == "" {
			name = f.Name
		}
		if !f.IsExported() || f.Tag.Get("json") == "-" || f.Anonymous && f.Type.Kind() == reflect.Pointer ||
			has("string") || !validColumn(name) {
			continue
		}
		c.Name, c.Path = c.Name+"."+name, append(slices.Clip(c.Path), name)
		if isGroup(f.Type) {
			all = nestIn(all, c, f.Type, omitted || has("omitzero"))
			continue
		}
		if c.Nullable = f.Type.Kind() == reflect.Pointer; c.Nullable {
			c.Type = f.Type.Elem()
		}
		c.Kind = KindOf(c.Type)
		_, list := c.Element()
		plain := c.Kind <= KindInt || c.Kind == KindFloat && c.Type.Kind() == reflect.Float64
		mayLack := omitted || has("omitempty") || has("omitzero")
		if encodes(c.Type) || encodes(reflect.PointerTo(c.Type)) || !list && !plain || !list && mayLack && !c.Nullable ||
			list && c.Nullable {
			continue
		}
		c.Type = f.Type
		all = append(all, c)
	}
	return all
}

// Element returns the type of the elements of a column that is a slice of what JSON holds as text, booleans or numbers.
func (c Column) Element() (reflect.Type, bool) {
	if c.Kind != KindJSON || c.Valuer || c.Type.Kind() != reflect.Slice || encodes(c.Type) ||
		encodes(reflect.PointerTo(c.Type)) {
		return nil, false
	}
	t := c.Type.Elem()
	p := reflect.PointerTo(t)
	if encodes(p) { // uuid.UUID, netip.Addr: text, unless it has a form of its own
		return t, p.Implements(reflect.TypeFor[encoding.TextMarshaler]()) && !p.Implements(reflect.TypeFor[json.Marshaler]())
	}
	switch KindOf(t) {
	case KindString, KindBool, KindInt, KindFloat:
		return t, true
	}
	return nil, false
}

var errElement = errors.New("repository: no text, boolean or number")

// Element brings an element of a list to what JSON makes of it: string, bool, int64 or float64. The error matches
// ErrValue where no list can hold it.
func Element(v any) (any, error) {
	p := reflect.New(reflect.TypeOf(v)) // methods of its pointer count, as they do in a slice
	p.Elem().Set(reflect.ValueOf(v))
	body, err := json.Marshal(p.Interface())
	if err != nil || jsoncheck.ReplacedUTF8(body) {
		return nil, fmt.Errorf("%w: an element of a list", ErrValue)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	switch x := out.(type) {
	case string, bool:
		return x, nil
	case json.Number:
		if i, err := strconv.ParseInt(x.String(), 10, 64); err == nil {
			return i, nil
		}
		return x.Float64()
	}
	return nil, errElement
}

// Contains reports whether the list in an entity has an element that is equal to one that Element returned.
func (c Column) Contains(entity reflect.Value, element any) bool {
	list := entity.FieldByIndex(c.Index)
	for i := range list.Len() {
		if e, err := Element(list.Index(i).Interface()); err == nil && e == element {
			return true
		}
	}
	return false
}
