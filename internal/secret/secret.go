// Package secret holds values that must never be printed.
package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// Redacted is what every rendering of a secret shows.
const Redacted = "[REDACTED]"

// Value holds a secret of type T behind a pointer, where fmt and reflection-based encoders cannot reach it, also
// when it lies in an unexported field. Copies share the secret. The zero Value holds the zero T.
type Value[T any] struct {
	p *holder[T]
}

// holder is reached only through a function value, which fmt prints as an address at most.
type holder[T any] struct {
	get func() T
}

// New wraps v.
func New[T any](v T) Value[T] {
	return Value[T]{p: &holder[T]{get: func() T { return v }}}
}

// Reveal returns the secret. Name the reason at the call: it is the only way out.
func (v Value[T]) Reveal() T {
	if v.p == nil {
		var zero T
		return zero
	}
	return v.p.get()
}

// IsZero reports whether no secret was put in.
func (v Value[T]) IsZero() bool { return v.p == nil }

// String implements fmt.Stringer.
func (v Value[T]) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (v Value[T]) GoString() string { return Redacted }

// Format implements fmt.Formatter, for every verb.
func (v Value[T]) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue implements slog.LogValuer.
func (v Value[T]) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements encoding.TextMarshaler.
func (v Value[T]) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON implements json.Marshaler.
func (v Value[T]) MarshalJSON() ([]byte, error) { return json.Marshal(Redacted) }
