package sagamem

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"strings"

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
	// Times before 1970 sort as 1970.
	wake := uint64(max(r.WakeAt.UnixNano(), 0))
	return kindKey(saga.Kind{Name: r.Name, Version: r.Version}) + string(binary.BigEndian.AppendUint64(nil, wake)) + r.ID
}

func ownedKey(owner, id string) string          { return "owned\x00" + owner + "\x00" + id }
func statusKey(s saga.Status, id string) string { return "status\x00" + string(s) + "\x00" + id }
func nameKey(name string, s saga.Status, id string) string {
	return "name\x00" + name + "\x00" + string(s) + "\x00" + id
}

// keys returns the keys under which a saga is found.
func keys(r saga.Record) []string {
	out := []string{statusKey(r.Status, r.ID), nameKey(r.Name, r.Status, r.ID)}
	switch {
	case r.Status.Ended():
	case r.Owner == "":
		out = append(out, freeKey(r))
	default:
		out = append(out, ownedKey(r.Owner, r.ID))
	}
	return out
}

// ids returns the ids of the keys that begin with prefix, in order, the ids greater than after.
func (x *index) ids(prefix, after string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for key := range x.from(prefix + after) {
			id, ok := strings.CutPrefix(key, prefix)
			if !ok || id != after && !yield(id) {
				return
			}
		}
	}
}
