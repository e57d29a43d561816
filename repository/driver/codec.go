package driver

import (
	"database/sql"
	sqldriver "database/sql/driver"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/jsoncheck"
)

// ErrValue says that a value cannot be stored so that it is read as it was: NaN, invalid UTF-8 inside a field that is
// stored as JSON, a driver.Valuer that fails, and on PostgreSQL text with NUL or invalid UTF-8.
var ErrValue = errors.New("repository: the database cannot hold the value")

// isValuer reports whether values of t are stored by driver.Valuer and read by sql.Scanner.
func isValuer(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[sqldriver.Valuer]()) && p.Implements(reflect.TypeFor[sql.Scanner]())
}

// valuerKind is the kind of what Value returns for the zero value; text where that is NULL or fails.
func valuerKind(t reflect.Type) Kind {
	v, err := driverValue(reflect.New(t).Elem())
	if err != nil || v == nil {
		return nullValuerKind(t)
	}
	return KindOf(reflect.TypeOf(v))
}

// nullValuerKind knows the types of database/sql whose zero value is NULL, by the type of what they wrap.
func nullValuerKind(t reflect.Type) Kind {
	if t.PkgPath() == "database/sql" && t.Kind() == reflect.Struct && t.NumField() > 0 {
		if k := KindOf(t.Field(0).Type); k != KindJSON {
			return k
		}
	}
	return KindString
}

// driverValue calls Value of an addressable value, and brings what it returns to the types of Node. A panic of Value,
// as some types raise for their zero value, is an error.
func driverValue(f reflect.Value) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("repository: Value of %s panicked: %v", f.Type(), p)
		}
	}()
	v, err = f.Addr().Interface().(sqldriver.Valuer).Value()
	if err != nil {
		return nil, err
	}
	switch v.(type) {
	case nil, int64, float64, bool, []byte, string, time.Time:
		return Normal(v), nil
	}
	return nil, fmt.Errorf("repository: Value of %s returned a %T, which is no driver.Value", f.Type(), v)
}

// Encode returns what is stored for the column in an entity: nil for NULL, JSON text for KindJSON, else the types that
// Node documents. entity is addressable. The error matches ErrValue where the value cannot be stored faithfully.
func (c Column) Encode(entity reflect.Value) (any, error) {
	f := entity.FieldByIndex(c.Index)
	if c.Nullable {
		if f.IsNil() {
			return nil, nil
		}
		f = f.Elem()
	}
	if v, ok := plain(f.Addr().Interface()); ok {
		return v, nil
	}
	switch {
	case c.Valuer:
		v, err := driverValue(f)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w: %w", c.Name, ErrValue, err)
		}
		return v, nil
	case c.Kind == KindJSON:
		text, err := encodeJSON(f)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		return text, nil
	case c.Kind == KindBytes && f.IsNil():
		return nil, nil
	case c.Kind == KindFloat && math.IsNaN(f.Float()): // SQLite stores NULL, and databases do not agree on its order
		return nil, fmt.Errorf("column %s: %w: NaN", c.Name, ErrValue)
	}
	return Normal(f.Interface()), nil
}

// Refuses reports whether Encode may return an error for a value of the column.
func (c Column) Refuses() bool { return c.Valuer || c.Kind == KindJSON || c.Kind == KindFloat }

// plain returns the value that p points to where its type is common and one that Node documents: reflection would copy
// it once more.
func plain(p any) (any, bool) {
	switch p := p.(type) {
	case *string:
		return *p, true
	case *int64:
		return *p, true
	case *bool:
		return *p, true
	case *time.Time:
		return p.UTC().Truncate(time.Microsecond), true
	}
	return nil, false
}

// encodeJSON encodes an addressable value, so that methods of its pointer count.
func encodeJSON(f reflect.Value) (string, error) {
	body, err := json.Marshal(f.Addr().Interface())
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrValue, err)
	}
	if jsoncheck.ReplacedUTF8(body) {
		return "", fmt.Errorf("%w: text that is no UTF-8", ErrValue)
	}
	return string(body), nil
}

// Decode sets the column in an entity to a stored value: what Encode returns, or what a driver makes of it. entity is
// addressable. NULL sets the zero value.
func (c Column) Decode(entity reflect.Value, stored any) error {
	f := entity.FieldByIndex(c.Index)
	f.SetZero()
	if stored == nil && !(c.Valuer && !c.Nullable) {
		return nil
	}
	if c.Nullable {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	switch {
	case c.Valuer:
		if at, ok := stored.(time.Time); ok {
			stored = at.UTC()
		}
		return f.Addr().Interface().(sql.Scanner).Scan(stored)
	case c.Kind == KindJSON:
		return decodeJSON(stored, f.Addr().Interface())
	case c.Kind == KindBytes:
		b, ok := stored.([]byte)
		if s, isText := stored.(string); isText {
			b, ok = []byte(s), true
		}
		if !ok {
			return fmt.Errorf("a %T in a column of bytes", stored)
		}
		f.SetBytes(append([]byte{}, b...))
		return nil
	}
	v := reflect.ValueOf(stored)
	if !v.CanConvert(f.Type()) || (v.Kind() == reflect.String) != (f.Kind() == reflect.String) {
		return fmt.Errorf("a %T in a column of %s", stored, f.Type())
	}
	f.Set(v.Convert(f.Type()))
	return nil
}

// decodeJSON decodes JSON text. Numbers in an any become json.Number, so that they keep their digits.
func decodeJSON(stored, into any) error {
	var text string
	switch s := stored.(type) {
	case string:
		text = s
	case []byte:
		text = string(s)
	default:
		return fmt.Errorf("a %T in a column of JSON", stored)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}

// checkJSON returns an error when encoding/json would lose a part of t, or could not read what it writes.
func checkJSON(t reflect.Type) error {
	return jsonCheck{}.check(t, true)
}

// jsonCheck holds the types that are being checked, which may contain themselves.
type jsonCheck map[reflect.Type]bool

// check looks at a type; addressable says that encoding/json finds methods of its pointer.
func (seen jsonCheck) check(t reflect.Type, addressable bool) error {
	if seen[t] {
		return nil
	}
	seen[t] = true
	p := reflect.PointerTo(t)
	switch {
	case encodes(t):
		if !decodes(p) {
			return fmt.Errorf("%s has a method that encodes it and none that decodes it", t)
		}
		return nil
	case encodes(p):
		if !addressable {
			return fmt.Errorf("%s is encoded by a method of its pointer, which encoding/json does not call for the values "+
				"of a map", t)
		}
		if !decodes(p) {
			return fmt.Errorf("%s has a method that encodes it and none that decodes it", t)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return seen.check(t.Elem(), true)
	case reflect.Array:
		return seen.check(t.Elem(), addressable)
	case reflect.Map:
		return seen.checkMap(t)
	case reflect.Struct:
		return seen.checkStruct(t, addressable)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Errorf("%s is an interface, of which encoding/json does not know the type to decode", t)
		}
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("%s is nothing that JSON can hold", t)
	}
	return nil
}

func encodes(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

func decodes(p reflect.Type) bool {
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func (seen jsonCheck) checkMap(t reflect.Type) error {
	k := t.Key()
	switch {
	case encodes(k) != decodes(reflect.PointerTo(k)):
		return fmt.Errorf("%s: its key has only one of the methods that encode and decode it", t)
	case encodes(k), k.Kind() == reflect.String, k.Kind() >= reflect.Int && k.Kind() <= reflect.Uintptr:
		return seen.check(t.Elem(), false)
	}
	return fmt.Errorf("%s: JSON has no such keys", t)
}

func (seen jsonCheck) checkStruct(t reflect.Type, addressable bool) error {
	names := map[string]string{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || f.Name == "_" {
			continue
		}
		name, _, _ := strings.Cut(tag, ",")
		embedded := f.Anonymous && name == ""
		if !f.IsExported() && !(embedded && f.Type.Kind() == reflect.Struct) {
			return fmt.Errorf("%s.%s is not exported and would be lost; the type needs MarshalJSON and UnmarshalJSON, or "+
				"driver.Valuer and sql.Scanner", t, f.Name)
		}
		if !embedded {
			if name == "" {
				name = f.Name
			}
			folded := strings.ToLower(name)
			if other, dup := names[folded]; dup {
				return fmt.Errorf("%s.%s and %s have the same name in JSON, so that one is lost", t, f.Name, other)
			}
			names[folded] = f.Name
		}
		if err := seen.check(f.Type, addressable); err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
	}
	return nil
}

// isPlainStruct reports whether an embedded struct is a group of columns rather than one value.
func isPlainStruct(t reflect.Type) bool {
	return t != reflect.TypeFor[time.Time]() && !isValuer(t) && !encodes(t) && !encodes(reflect.PointerTo(t))
}
