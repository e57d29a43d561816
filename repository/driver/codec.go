package driver

import (
	"database/sql"
	sqldriver "database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/sillar-go/sillar/internal/jsoncheck"
)

// ErrValue says that a value cannot be stored so that it is read as it was: NaN, a time before the year -4711 or after
// 294246, invalid UTF-8 inside a field that is
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
		if c.Kind == KindTime {
			return v, c.storable(v)
		}
		return v, nil
	}
	switch {
	case c.Valuer:
		v, err := driverValue(f)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w: %w", c.Name, ErrValue, err)
		}
		return v, c.storable(v)
	case c.Kind == KindJSON:
		text, err := encodeJSON(f)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		return text, nil
	case c.Kind == KindBytes && f.IsNil():
		return nil, nil
	}
	v := Normal(f.Interface())
	return v, c.storable(v)
}

func (c Column) storable(v any) error {
	if err := Storable(v); err != nil {
		return fmt.Errorf("column %s: %w", c.Name, err)
	}
	return nil
}

// earliest and latest are just outside of the times that all databases hold: those of PostgreSQL begin in 4713 BC, and
// SQLite's microseconds end in the year 294247.
var (
	earliest = time.Date(-4712, 12, 31, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(294247, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Storable returns an error that matches ErrValue for a number or a time that not every database can hold.
func Storable(v any) error {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) { // SQLite stores NULL, and databases do not agree on its order
			return fmt.Errorf("%w: NaN", ErrValue)
		}
	case time.Time:
		if !v.After(earliest) || !v.Before(latest) {
			return fmt.Errorf("%w: a time before the year -4711 or after 294246", ErrValue)
		}
	}
	return nil
}

// normalTime cuts a time to microseconds, and one that no database holds to one that is just as far before or after
// all that they hold, so that it can be compared.
func normalTime(t time.Time) time.Time {
	t = t.UTC()
	switch {
	case t.Before(earliest):
		return earliest
	case t.After(latest):
		return latest
	}
	return t.Truncate(time.Microsecond)
}

// Refuses reports whether Encode may return an error for a value of the column, other than a time.
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
		return normalTime(*p), true
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
		if b, ok := stored.([]byte); ok && b == nil { // as the driver of SQLite has an empty one
			stored = []byte{}
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

// isPlainStruct reports whether an embedded struct is a group of columns rather than one value.
func isPlainStruct(t reflect.Type) bool {
	return t != reflect.TypeFor[time.Time]() && !isValuer(t) && !encodes(t) && !encodes(reflect.PointerTo(t))
}
