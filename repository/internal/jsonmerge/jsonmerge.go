// Package jsonmerge changes JSON text without losing what this version of a program does not know of.
package jsonmerge

import "slices"

// Merge returns after with the parts of stored that before lacks: stored is what the database held, before what this
// program read of it and would write again, after what it writes now. A field that before has and after lacks was
// removed, and stays so. Elements of arrays are matched where they are unchanged, or at the same place of an array of
// the same length. Text that is no JSON of one shape gives after. It takes time in proportion to the texts.
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
	return merged.text
}

// merge returns a with what s has and b lacks, and whether there was any of it.
func merge(s, b, a value) (merged value, changed bool) {
	if s.kind == 0 || s.kind != b.kind || s.kind != a.kind {
		return a, false
	}
	if s.kind == '{' {
		merged, changed = mergeFields(s, b, a)
	} else {
		merged, changed = mergeItems(s, b, a)
	}
	if changed {
		merged.seal()
	}
	return merged, changed
}

func mergeFields(s, b, a value) (merged value, changed bool) {
	merged = value{kind: '{', text: a.text, fields: slices.Clone(a.fields)}
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
	unchanged := map[string][]int{} // places in b that are free, by text
	for i, was := range b.items {
		unchanged[was.text] = append(unchanged[was.text], i)
	}
	merged = value{kind: '[', text: a.text, items: slices.Clone(a.items)}
	from := make([]int, len(a.items)) // the place in b of each, or -1
	used := make([]bool, len(b.items))
	for i, item := range a.items {
		from[i] = -1
		if free := unchanged[item.text]; len(free) > 0 {
			from[i], used[free[0]], unchanged[item.text] = free[0], true, free[1:]
		}
	}
	for i := range a.items {
		if from[i] < 0 && len(a.items) == len(b.items) && !used[i] {
			from[i] = i
		}
		if from[i] < 0 {
			continue
		}
		sub, subChanged := merge(s.items[from[i]], b.items[from[i]], a.items[i])
		merged.items[i], changed = sub, changed || subChanged
	}
	return merged, changed
}
