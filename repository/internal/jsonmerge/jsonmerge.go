// Package jsonmerge changes JSON text without losing what this version of a program does not know of.
package jsonmerge

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Merge returns after with the parts of stored that before lacks: stored is what the database held, before what this
// program read of it and would write again, after what it writes now. A field that before has and after lacks was
// removed, and stays so. Elements of arrays are matched where they are unchanged, or at the same place of an array of
// the same length. Text that is no JSON of one shape gives after.
func Merge(stored, before, after string) string {
	if stored == before || stored == "" || before == "" {
		return after
	}
	s, ok1 := parse(stored)
	b, ok2 := parse(before)
	a, ok3 := parse(after)
	if !ok1 || !ok2 || !ok3 {
		return after
	}
	merged, changed := merge(s, b, a)
	if !changed {
		return after
	}
	out, err := merged.MarshalJSON()
	if err != nil {
		return after
	}
	return string(out)
}

// value is a JSON value: an object or an array whose parts can be looked at, or raw text.
type value struct {
	raw    json.RawMessage
	fields []field // of an object, in order
	items  []value // of an array
	kind   byte    // '{', '[' or 0
}

type field struct {
	name  string
	value value
}

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
		v.raw, err = json.Marshal(t)
		return v, err == nil
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
	_, err = d.Token()
	return v, err == nil
}

// MarshalJSON implements json.Marshaler.
func (v value) MarshalJSON() ([]byte, error) {
	if v.kind == 0 {
		return v.raw, nil
	}
	var b bytes.Buffer
	b.WriteByte(v.kind)
	for i, f := range v.fields {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		if err := write(&b, f.value); err != nil {
			return nil, err
		}
	}
	for i, item := range v.items {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := write(&b, item); err != nil {
			return nil, err
		}
	}
	b.WriteByte(v.kind + 2) // } and ] come two after { and [
	return b.Bytes(), nil
}

func write(b *bytes.Buffer, v value) error {
	raw, err := v.MarshalJSON()
	b.Write(raw)
	return err
}

// get returns the field of a name as encoding/json matches it: in any case.
func (v value) get(name string) (value, bool) {
	for _, f := range v.fields {
		if strings.EqualFold(f.name, name) {
			return f.value, true
		}
	}
	return value{}, false
}

func equal(a, b value) bool {
	x, err1 := a.MarshalJSON()
	y, err2 := b.MarshalJSON()
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// merge returns a with what s has and b lacks, and whether there was any of it.
func merge(s, b, a value) (merged value, changed bool) {
	if s.kind == 0 || s.kind != b.kind || s.kind != a.kind {
		return a, false
	}
	if s.kind == '[' {
		return mergeItems(s, b, a)
	}
	merged = value{kind: '{', fields: slices.Clone(a.fields)}
	for i, f := range merged.fields {
		in, stored := s.get(f.name)
		was, known := b.get(f.name)
		if stored && known {
			sub, subChanged := merge(in, was, f.value)
			merged.fields[i].value, changed = sub, changed || subChanged
		}
	}
	for _, f := range s.fields {
		_, known := b.get(f.name)
		_, set := a.get(f.name)
		if !known && !set {
			merged.fields, changed = append(merged.fields, f), true
		}
	}
	return merged, changed
}

func mergeItems(s, b, a value) (merged value, changed bool) {
	if len(s.items) != len(b.items) {
		return a, false
	}
	merged = value{kind: '[', items: slices.Clone(a.items)}
	used := make([]bool, len(b.items))
	for i, item := range merged.items {
		at := i
		if i >= len(b.items) || used[i] || !equal(b.items[i], item) {
			at = slices.IndexFunc(b.items, func(was value) bool { return equal(was, item) })
			if at < 0 && len(a.items) == len(b.items) {
				at = i
			}
		}
		if at < 0 || used[at] {
			continue
		}
		used[at] = true
		sub, subChanged := merge(s.items[at], b.items[at], item)
		merged.items[i], changed = sub, changed || subChanged
	}
	return merged, changed
}
