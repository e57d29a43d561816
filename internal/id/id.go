// Package id makes the identifiers of the library: UUIDs of version 7 (RFC 9562), which sort by the time of their
// making and so keep B-tree indexes dense.
package id

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// New returns a UUIDv7 in its 36-character text form. It panics only when the system's source of randomness fails,
// after which no identifier can be trusted.
func New() string { return At(time.Now()) }

// At is New for callers that have the present time already.
func At(now time.Time) string {
	const version, variant = 7 << 12, 2 << 62
	stamp := next(now)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], stamp>>12<<16|version|stamp&0xfff)
	binary.BigEndian.PutUint64(b[8:], variant|randomness()>>2)
	var text [36]byte
	hex.Encode(text[:], b[:4])
	hex.Encode(text[9:], b[4:6])
	hex.Encode(text[14:], b[6:8])
	hex.Encode(text[19:], b[8:10])
	hex.Encode(text[24:], b[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

var last atomic.Uint64

// next returns the milliseconds since 1970 followed by 12 bits of what is below a millisecond, and more than the last
// time: ids of one process ascend.
func next(now time.Time) uint64 {
	ns := uint64(now.UnixNano())
	stamp := ns/1e6<<12 | ns%1e6>>8
	for {
		before := last.Load()
		stamp = max(stamp, before+1)
		if last.CompareAndSwap(before, stamp) {
			return stamp
		}
	}
}

// readers read the system's randomness for 64 ids at a time: a system call for each would take longer than the rest.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(rand.Reader, 64*8) }}

func randomness() uint64 {
	r := readers.Get().(*bufio.Reader)
	defer readers.Put(r)
	b, err := r.Peek(8)
	if err != nil {
		panic(err)
	}
	n := binary.BigEndian.Uint64(b)
	_, _ = r.Discard(8) // they are there
	return n
}

// Valid reports whether s is a UUID of any version in its 36-character text form.
func Valid(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }

// Time returns when New made an id, to the millisecond, and false for an id that New did not make.
func Time(s string) (time.Time, bool) {
	u, err := uuid.Parse(s)
	if err != nil || len(s) != 36 || u.Version() != 7 {
		return time.Time{}, false
	}
	return time.Unix(u.Time().UnixTime()).UTC().Truncate(time.Millisecond), true
}
