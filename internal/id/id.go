// Package id makes the identifiers of the library: UUIDs of version 7 (RFC 9562), which sort by the time of their
// making and so keep B-tree indexes dense.
package id

import (
	"time"

	"github.com/google/uuid"
)

// New returns a UUIDv7 in its 36-character text form. It panics only when the system's source of randomness fails,
// after which no identifier can be trusted.
func New() string { return uuid.Must(uuid.NewV7()).String() }

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
