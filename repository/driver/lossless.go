package driver

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
)

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
		return checkPromoted(t, jsonMethods)
	case encodes(p):
		if !addressable {
			return fmt.Errorf("%s is encoded by a method of its pointer, which encoding/json does not call for the values "+
				"of a map", t)
		}
		if !decodes(p) {
			return fmt.Errorf("%s has a method that encodes it and none that decodes it", t)
		}
		return checkPromoted(t, jsonMethods)
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
	if err := uniqueNames(t, t, map[string]string{}, map[reflect.Type]bool{}); err != nil {
		return err
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("json") == "-" || f.Name == "_" {
			continue
		}
		embedded := isEmbedded(f)
		if !f.IsExported() && !(embedded && f.Type.Kind() == reflect.Struct) {
			return fmt.Errorf("%s.%s is not exported and would be lost; the type needs MarshalJSON and UnmarshalJSON, or "+
				"driver.Valuer and sql.Scanner", t, f.Name)
		}
		if err := seen.check(f.Type, addressable); err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
	}
	return nil
}

// isEmbedded reports whether encoding/json takes the fields of f for those of the struct around it.
func isEmbedded(f reflect.StructField) bool {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return f.Anonymous && name == "" && deref(f.Type).Kind() == reflect.Struct
}

func deref(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// uniqueNames adds the names that t's fields have in the JSON of outer. encoding/json leaves out fields of embedded
// structs whose name another field has.
func uniqueNames(outer, t reflect.Type, names map[string]string, embedded map[reflect.Type]bool) error {
	if embedded[t] {
		return fmt.Errorf("%s embeds %s twice, so that fields are lost", outer, t)
	}
	embedded[t] = true
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || f.Name == "_" || !f.IsExported() && !isEmbedded(f) {
			continue
		}
		if isEmbedded(f) {
			e := deref(f.Type)
			if encodes(reflect.PointerTo(e)) {
				return fmt.Errorf("%s.%s is embedded, so that encoding/json does not call its methods", t, f.Name)
			}
			if err := uniqueNames(outer, e, names, embedded); err != nil {
				return err
			}
			continue
		}
		name, _, _ := strings.Cut(tag, ",")
		name = cmp.Or(name, f.Name)
		folded := strings.ToLower(name)
		if other, dup := names[folded]; dup {
			return fmt.Errorf("%s: %s.%s and %s have the same name in JSON, so that one is lost", outer, t, f.Name, other)
		}
		names[folded] = t.String() + "." + f.Name
	}
	return nil
}

// jsonMethods are those by which encoding/json writes and reads a type, valuerMethods those of database/sql. With the
// names as variables the linker would keep all methods of the program.
func jsonMethods(t reflect.Type) []reflect.Method {
	out, ok := t.MethodByName("MarshalJSON")
	if !ok {
		out, _ = t.MethodByName("MarshalText")
	}
	in, ok := t.MethodByName("UnmarshalJSON")
	if !ok {
		in, _ = t.MethodByName("UnmarshalText")
	}
	return []reflect.Method{out, in}
}

func valuerMethods(t reflect.Type) []reflect.Method {
	out, _ := t.MethodByName("Value")
	in, _ := t.MethodByName("Scan")
	return []reflect.Method{out, in}
}

// checkPromoted returns an error for a struct with several fields that is stored by a method of one that it embeds: the
// others would be lost.
func checkPromoted(t reflect.Type, methods func(reflect.Type) []reflect.Method) error {
	if t.Kind() != reflect.Struct || t.NumField() < 2 || strings.Contains(t.Name(), "[") {
		return nil // methods of generic types look as if they were promoted
	}
	of, ofPointer := methods(t), methods(reflect.PointerTo(t))
	for i, m := range of {
		if !m.Func.IsValid() {
			m = ofPointer[i]
		}
		if m.Func.IsValid() && isPromoted(m) {
			return fmt.Errorf("%s is stored by %s of a type that it embeds, so that its other fields are lost", t, m.Name)
		}
	}
	return nil
}

// isPromoted reports whether the compiler made the method.
func isPromoted(m reflect.Method) bool {
	frames := runtime.CallersFrames([]uintptr{m.Func.Pointer() + 1})
	for {
		frame, more := frames.Next()
		if !more { // the outermost of those that were inlined
			return frame.File == "<autogenerated>"
		}
	}
}
