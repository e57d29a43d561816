package jsonmerge

import (
	"bytes"
	"encoding/json"
	"strings"
)

// value is a JSON value: an object or an array, whose parts can be looked at, or a scalar.
type value struct {
	text   string  // in the form of encoding/json
	fields []field // of an object, in order
	items  []value // of an array
	kind   byte    // '{', '[' or 0

	places map[string]int // of an object's fields, by their folded names
}

type field struct {
	name  string
	value value
}

// parse reads one JSON value.
func parse(text string) (v value, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if v, ok = next(d); !ok || d.More() {
		return v, false
	}
	return v, true
}

func next(d *json.Decoder) (v value, ok bool) {
	t, err := d.Token()
	if err != nil {
		return v, false
	}
	delim, nested := t.(json.Delim)
	if !nested {
		raw, err := json.Marshal(t)
		return value{text: string(raw)}, err == nil
	}
	v.kind = byte(delim)
	for d.More() {
		var f field
		if v.kind == '{' {
			name, err := d.Token()
			if err != nil {
				return v, false
			}
			f.name = name.(string)
		}
		if f.value, ok = next(d); !ok {
			return v, false
		}
		if v.kind == '{' {
			v.fields = append(v.fields, f)
		} else {
			v.items = append(v.items, f.value)
		}
	}
	if _, err := d.Token(); err != nil {
		return v, false
	}
	v.seal()
	return v, true
}

// seal writes the text of an object or an array, and indexes the fields.
func (v *value) seal() {
	var b bytes.Buffer
	b.WriteByte(v.kind)
	v.places = make(map[string]int, len(v.fields))
	for i, f := range v.fields {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(f.name) // text always encodes
		b.Write(name)
		b.WriteByte(':')
		b.WriteString(f.value.text)
		v.places[fold(f.name)] = i
	}
	for i, item := range v.items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(item.text)
	}
	b.WriteByte(v.kind + 2) // } and ] come two after { and [
	v.text = b.String()
}

// get returns the field of a name as encoding/json matches it: in any case.
func (v value) get(name string) (value, bool) {
	i, ok := v.places[fold(name)]
	if !ok {
		return value{}, false
	}
	return v.fields[i].value, true
}

// fold gives names that differ in case only one form.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }
