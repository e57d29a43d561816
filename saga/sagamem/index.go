package sagamem

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sillar-go/sillar/saga"
)

// index is an ordered set of keys: a treap (https://en.wikipedia.org/wiki/Treap). Each operation looks at O(log n)
// keys.
type index struct{ root *item }

type item struct {
	key         string
	priority    uint64
	left, right *item
}

func (x *index) add(key string) {
	less, rest := split(x.root, key)
	if rest != nil && first(rest).key == key {
		x.root = merge(less, rest)
		return
	}
	x.root = merge(merge(less, &item{key: key, priority: rand.Uint64()}), rest)
}

func (x *index) remove(key string) {
	less, rest := split(x.root, key)
	_, more := split(rest, key+"\x00")
	x.root = merge(less, more)
}

// from returns the keys in order, from the first one that is not less than key.
func (x *index) from(key string) iter.Seq[string] {
	return func(yield func(string) bool) { x.root.walk(key, yield) }
}

func (i *item) walk(from string, yield func(string) bool) bool {
	if i == nil {
		return true
	}
	if i.key < from {
		return i.right.walk(from, yield)
	}
	return i.left.walk(from, yield) && yield(i.key) && i.right.walk(from, yield)
}

// split returns the keys less than key, and the others.
func split(i *item, key string) (less, rest *item) {
	if i == nil {
		return nil, nil
	}
	if i.key < key {
		i.right, rest = split(i.right, key)
		return i, rest
	}
	less, i.left = split(i.left, key)
	return less, i
}

// merge joins two treaps, every key of a before every key of b.
func merge(a, b *item) *item {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = merge(a.right, b)
		return a
	}
	b.left = merge(a, b.left)
	return b
}

func first(i *item) *item {
	for i.left != nil {
		i = i.left
	}
	return i
}

// A key is a path of parts, each followed by a NUL, which no part holds; the last part is the saga's id.

func kindKey(k saga.Kind) string {
	return "free\x00" + k.Name + "\x00" + string(binary.BigEndian.AppendUint32(nil, uint32(k.Version)))
}

func freeKey(r saga.Record) string {
	return kindKey(saga.Kind{Name: r.Name, Version: r.Version}) + at(r.WakeAt, r.ID)
}

func ownedKey(owner, id string) string { return "owned\x00" + owner + "\x00" + id }
func statusKey(s saga.Status) string   { return "status\x00" + string(s) + "\x00" }
func nameKey(name string, s saga.Status) string {
	return "name\x00" + name + "\x00" + string(s) + "\x00"
}
func attributeKey(name, value string) string { return "attribute\x00" + name + "\x00" + value + "\x00" }
func endedKey() string                       { return "ended\x00" }

// at is the end of a key that sorts by time, and then by id. Times before 1970 sort as 1970.
func at(t time.Time, id string) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixNano(), 0)))) + id
}

// keys returns the keys under which a saga is found.
func keys(r saga.Record) []string {
	began := at(r.CreatedAt, r.ID)
	out := []string{statusKey(r.Status) + began, nameKey(r.Name, r.Status) + began}
	for name, value := range r.Attributes() {
		out = append(out, attributeKey(name, value)+began)
	}
	switch {
	case r.Status == saga.Completed || r.Status == saga.Compensated:
		out = append(out, endedKey()+at(r.UpdatedAt, r.ID))
	case r.Status.Ended():
	case r.Owner == "":
		out = append(out, freeKey(r))
	default:
		out = append(out, ownedKey(r.Owner, r.ID))
	}
	return out
}

// rests returns the rests of the keys that begin with prefix, in order, those greater than after.
func (x *index) rests(prefix, after string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for key := range x.from(prefix + after) {
			rest, ok := strings.CutPrefix(key, prefix)
			if !ok || rest != after && !yield(rest) {
				return
			}
		}
	}
}
