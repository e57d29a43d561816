// Package correlation carries the correlation id of a request: the one id under which every log line, event and
// saga row of that request can be found. The id travels in the context inside a process and, between processes,
// through OpenTelemetry's propagation API, so that HTTP headers, gRPC metadata, AMQP headers and stored rows carry
// it with no code of their own.
package correlation

import (
	"context"

	"go.opentelemetry.io/otel/propagation"

	"github.com/sillar-go/sillar/internal/id"
)

// Header is the carrier key under which the id travels.
const Header = "X-Correlation-ID"

// MaxLen is the longest id, in bytes, that is accepted from outside.
const MaxLen = 128

type key struct{}

// New returns a fresh id, a UUIDv7 in text form.
func New() string { return id.New() }

// Valid reports whether s may be accepted from outside: 1 to 128 characters of [A-Za-z0-9._-]. Everything else
// could forge log lines or grow without bound.
func Valid(s string) bool {
	if len(s) == 0 || len(s) > MaxLen {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// With returns a context that carries id. An id that is not Valid is not carried.
func With(ctx context.Context, id string) context.Context {
	if !Valid(id) {
		return ctx
	}
	return context.WithValue(ctx, key{}, id)
}

// From returns the id that ctx carries, or "".
func From(ctx context.Context) string {
	s, _ := ctx.Value(key{}).(string)
	return s
}

// Ensure returns ctx with an id, its own or a fresh one, and that id.
func Ensure(ctx context.Context) (context.Context, string) {
	if s := From(ctx); s != "" {
		return ctx, s
	}
	s := New()
	return context.WithValue(ctx, key{}, s), s
}

// Propagator injects and extracts the id under Header.
type Propagator struct{}

// Inject implements propagation.TextMapPropagator.
func (Propagator) Inject(ctx context.Context, c propagation.TextMapCarrier) {
	if s := From(ctx); s != "" {
		c.Set(Header, s)
	}
}

// Extract implements propagation.TextMapPropagator. An id that is not Valid is ignored.
func (Propagator) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	s := c.Get(Header)
	if s == "" {
		s = c.Get("x-correlation-id") // maps, unlike http.Header, do not fold case
	}
	return With(ctx, s)
}

// Fields implements propagation.TextMapPropagator.
func (Propagator) Fields() []string { return []string{Header} }

// DefaultPropagator is what every package uses when its Config names no propagator: W3C trace context and the
// correlation id. It does not depend on what has been set globally.
func DefaultPropagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, Propagator{})
}
