package observability

import (
	"context"

	"github.com/sillar-go/sillar/internal/correlation"
	"github.com/sillar-go/sillar/internal/secret"
)

// Secret holds a value that no way of printing shows: fmt's verbs, JSON, slog, inside structs, slices, maps and
// errors. Reveal returns it.
type Secret[T any] = secret.Value[T]

// NewSecret wraps a value.
func NewSecret[T any](v T) Secret[T] { return secret.New(v) }

// CorrelationHeader is the HTTP header in which the correlation id travels.
const CorrelationHeader = correlation.Header

// CorrelationID returns the correlation id of the context, or "".
func CorrelationID(ctx context.Context) string { return correlation.From(ctx) }

// WithCorrelationID returns a context with the correlation id. An id that is not 1 to 128 characters of
// [A-Za-z0-9._-] is not carried.
func WithCorrelationID(ctx context.Context, id string) context.Context {
	return correlation.With(ctx, id)
}

// EnsureCorrelationID returns the context with a correlation id, its own or a fresh one, and that id.
func EnsureCorrelationID(ctx context.Context) (context.Context, string) {
	return correlation.Ensure(ctx)
}
