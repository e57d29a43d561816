package driver

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Kind is how a field is stored.
type Kind int

// The kinds.
const (
	KindString Kind = iota
	KindBool
	KindInt
	KindFloat
	KindTime
	KindBytes
	KindJSON
)

// Column is a mapped field of an entity.
type Column struct {
	// Name is the name under which the field is stored.
	Name string
	// Kind is how it is stored.
	Kind Kind
	// Nullable says that the field is a pointer: nil is stored as NULL.
	Nullable bool
	// Valuer says that the type of the field, or of what it points to, is a driver.Valuer whose pointer is a
	// sql.Scanner: its Value is stored, and Scan reads it. Kind is then the kind of the Value.
	Valuer bool
	// Index is the field's path, for reflect.Value.FieldByIndex.
	Index []int
	// Type is the field's Go type.
	Type reflect.Type
	// Path leads to a field inside the JSON of another column, Columns[In]; it is empty for a column of its own. The names
	// have letters, digits and _.
	Path []string
	In   int
}

// MayBeNull reports whether the column can hold NULL.
func (c Column) MayBeNull() bool { return c.Nullable || c.Valuer }

// Mapping is how an entity type is stored.
type Mapping struct {
	// Columns are the mapped fields, the id first.
	Columns []Column
	// ID, Version, CreatedAt and UpdatedAt are places in Columns.
	ID, Version, CreatedAt, UpdatedAt int

	typ    reflect.Type
	nested []Column // see Field
	byName map[string]int
	// byFolded are the names by their lower-case form.
	byFolded map[string]string
}

var mappings sync.Map // reflect.Type -> *Mapping or error

// MappingOf returns how E is stored. The error says what E lacks.
func MappingOf[E any]() (*Mapping, error) {
	t := reflect.TypeFor[E]()
	if m, ok := mappings.Load(t); ok {
		if err, bad := m.(error); bad {
			return nil, err
		}
		return m.(*Mapping), nil
	}
	m, err := mapType(t)
	if err != nil {
		mappings.Store(t, err)
		return nil, err
	}
	mappings.Store(t, m)
	return m, nil
}

// Column returns the place in Columns of the column with the name.
func (m *Mapping) Column(name string) (int, bool) {
	i, ok := m.byName[name]
	return i, ok
}

func mapType(t reflect.Type) (*Mapping, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("repository: %s is not a struct", t)
	}
	m := &Mapping{typ: t, byName: map[string]int{}, byFolded: map[string]string{}}
	if err := m.add(t, nil); err != nil {
		return nil, err
	}
	for _, need := range []struct {
		name string
		typ  reflect.Type
		at   *int
	}{
		{"ID", reflect.TypeFor[string](), &m.ID},
		{"Version", reflect.TypeFor[int64](), &m.Version},
		{"CreatedAt", reflect.TypeFor[time.Time](), &m.CreatedAt},
		{"UpdatedAt", reflect.TypeFor[time.Time](), &m.UpdatedAt},
	} {
		f, ok := t.FieldByName(need.name)
		if !ok || f.Type != need.typ {
			return nil, fmt.Errorf("repository: %s needs a field %s %s (or embed repository.Meta)", t, need.name, need.typ)
		}
		*need.at = -1
		for i, c := range m.Columns {
			if reflect.DeepEqual(c.Index, f.Index) {
				*need.at = i
			}
		}
		if *need.at < 0 {
			return nil, fmt.Errorf("repository: %s.%s must not be left out", t, need.name)
		}
	}
	m.nest()
	return m, nil
}

func (m *Mapping) add(t reflect.Type, path []int) error {
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(append([]int(nil), path...), i)
		tag, _, _ := strings.Cut(f.Tag.Get("repo"), ",")
		if f.Anonymous && f.Type.Kind() == reflect.Struct && tag == "" && isPlainStruct(f.Type) {
			if err := m.add(f.Type, index); err != nil {
				return err
			}
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		name := tag
		if name == "" {
			name = snake(f.Name)
		}
		if !validColumn(name) {
			return fmt.Errorf("repository: %s.%s: column name %q does not match [A-Za-z][A-Za-z0-9_]*, at most 63", m.typ,
				f.Name, name)
		}
		if other, dup := m.byFolded[strings.ToLower(name)]; dup { // SQLite does not distinguish them
			return fmt.Errorf("repository: %s maps two fields to %q and %q, which differ in case at most", m.typ, other, name)
		}
		c, err := columnOf(name, f.Type)
		if err != nil {
			return fmt.Errorf("repository: %s.%s cannot be stored: %w", m.typ, f.Name, err)
		}
		c.Index = index
		m.byName[name] = len(m.Columns)
		m.byFolded[strings.ToLower(name)] = name
		m.Columns = append(m.Columns, c)
	}
	return nil
}

// columnOf returns how a type is stored, or an error when what is read would differ from what was written.
func columnOf(name string, t reflect.Type) (Column, error) {
	c := Column{Name: name, Type: t}
	if t.Kind() == reflect.Pointer {
		c.Nullable, t = true, t.Elem()
	}
	if c.Valuer = isValuer(t); c.Valuer {
		c.Kind = valuerKind(t)
		return c, checkPromoted(t, valuerMethods)
	}
	c.Kind = KindOf(t)
	if c.Kind == KindJSON {
		return c, checkJSON(t)
	}
	return c, nil
}

// KindOf returns the kind of a type that is no Valuer.
func KindOf(t reflect.Type) Kind {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return KindTime
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return KindBytes
	}
	switch t.Kind() {
	case reflect.String:
		return KindString
	case reflect.Bool:
		return KindBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16,
		reflect.Uint32:
		return KindInt
	case reflect.Float32, reflect.Float64:
		return KindFloat
	}
	return KindJSON // uint and uint64 too: no database here holds them all as a number
}

// validColumn accepts names that every database takes between quotes.
func validColumn(s string) bool {
	for i, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && (r == '_' || r >= '0' && r <= '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// snake turns UserID into user_id and HTTPServer into http_server.
func snake(s string) string {
	var b strings.Builder
	runes := []rune(s)
	for i, r := range runes {
		if unicode.IsUpper(r) {
			lowerBefore := i > 0 && !unicode.IsUpper(runes[i-1])
			lowerAfter := i > 0 && i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if lowerBefore || lowerAfter {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
