package kafka

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
)

// span is a range of offsets, to excluded.
type span struct{ from, to int64 }

// position is how far a group has come in a partition. Records are settled in any order, so beside the first one that
// is not settled it knows which of those after it are.
type position struct {
	seen int64   // the offset behind the last record that was taken
	open []int64 // taken and not settled, ascending
	// settled are ranges at and behind seen that earlier owners of the partition have settled.
	settled []span
}

// take notes a record, and reports whether it is to be delivered: it is new, and was not settled before.
func (p *position) take(offset int64) bool {
	if offset < p.seen {
		return false
	}
	p.seen = offset + 1
	for len(p.settled) > 0 && p.settled[0].to <= offset {
		p.settled = p.settled[1:]
	}
	if len(p.settled) > 0 && p.settled[0].from <= offset {
		return false
	}
	p.open = append(p.open, offset)
	return true
}

// settle notes that a record is settled.
func (p *position) settle(offset int64) {
	if len(p.open) > 0 && p.open[0] == offset { // most often, and in constant time
		p.open = p.open[1:]
		return
	}
	if i, ok := slices.BinarySearch(p.open, offset); ok {
		p.open = slices.Delete(p.open, i, i+1)
	}
}

// snapshot returns the offset to commit, and the ranges behind it that are settled.
func (p *position) snapshot() (at int64, settled []span) {
	at = p.seen
	if len(p.open) > 0 {
		at = p.open[0]
	}
	add := func(from, to int64) {
		switch n := len(settled); {
		case from >= to:
		case n > 0 && settled[n-1].to == from:
			settled[n-1].to = to
		default:
			settled = append(settled, span{from, to})
		}
	}
	next := at
	for _, o := range p.open {
		add(next, o)
		next = o + 1
	}
	add(next, p.seen)
	for _, s := range p.settled {
		add(max(s.from, p.seen), s.to)
	}
	if len(settled) > 0 && settled[0].from == at {
		return settled[0].to, settled[1:]
	}
	return at, settled
}

// metaPrefix begins the metadata of a commit that this package made.
const metaPrefix = "sillar1:"

// maxMeta is how long the metadata of a commit may be: Kafka takes 4096 bytes (offset.metadata.max.bytes).
const maxMeta = 4000

// encodeSpans writes the ranges behind an offset for the metadata of a commit: lengths of what is not settled and of
// what is, in turn. Ranges that have no room are left out: they are delivered again when the partition moves.
func encodeSpans(at int64, settled []span) string {
	if len(settled) == 0 {
		return ""
	}
	var b []byte
	for _, s := range settled {
		next := binary.AppendUvarint(b, uint64(s.from-at))
		next = binary.AppendUvarint(next, uint64(s.to-s.from))
		if len(metaPrefix)+base64.RawStdEncoding.EncodedLen(len(next)) > maxMeta {
			break
		}
		b, at = next, s.to
	}
	return metaPrefix + base64.RawStdEncoding.EncodeToString(b)
}

// decodeSpans undoes encodeSpans. Metadata of other programs has no ranges.
func decodeSpans(at int64, meta string) (settled []span) {
	text, ok := strings.CutPrefix(meta, metaPrefix)
	if !ok {
		return nil
	}
	b, err := base64.RawStdEncoding.DecodeString(text)
	for err == nil && len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return nil
		}
		length, m := binary.Uvarint(b[n:])
		if m <= 0 || gap == 0 || length == 0 || gap > 1<<60 || length > 1<<60 || at > 1<<60 {
			return nil
		}
		s := span{at + int64(gap), at + int64(gap) + int64(length)}
		settled, at, b = append(settled, s), s.to, b[n+m:]
	}
	return settled
}
