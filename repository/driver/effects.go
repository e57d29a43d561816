package driver

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrNoEffects says that Collect was called outside the write of a document.
var ErrNoEffects = errors.New("repository: no document is being written in this context")

// Effect is a message, or something else that follows from a write, stored inside the document that is written, in the
// same atomic write, and drained from there. Its tags name the fields of that document.
type Effect struct {
	// ID identifies the effect, for consumers that drop duplicates.
	ID string `bson:"id"`
	// Kind says which relay drains it, such as "message".
	Kind string `bson:"kind"`
	// Topic is the topic of a message.
	Topic string `bson:"topic"`
	// Key orders it: effects of one key are published in order.
	Key string `bson:"key"`
	// Headers travel with it.
	Headers map[string]string `bson:"headers,omitempty"`
	// Body is its content.
	Body []byte `bson:"body"`
	// CreatedAt is when it was collected, in UTC.
	CreatedAt time.Time `bson:"created_at"`
}

type effectsKey struct{}

// Effects collects the effects of one write. Adapters of document databases put it into the context of a
// WriteHook.
type Effects struct {
	collection string
	mu         sync.Mutex
	list       []Effect
}

// WithEffects returns a context that collects effects of a write to a document of collection, and the collector.
func WithEffects(ctx context.Context, collection string) (context.Context, *Effects) {
	e := &Effects{collection: collection}
	return context.WithValue(ctx, effectsKey{}, e), e
}

// Collected returns what was collected, in order.
func (e *Effects) Collected() []Effect {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.list
}

// EffectsCollection returns the collection of the write that ctx belongs to, or "" outside one.
func EffectsCollection(ctx context.Context) string {
	if e, _ := ctx.Value(effectsKey{}).(*Effects); e != nil {
		return e.collection
	}
	return ""
}

// Collect adds an effect to the write that ctx belongs to, or returns ErrNoEffects.
func Collect(ctx context.Context, effect Effect) error {
	e, _ := ctx.Value(effectsKey{}).(*Effects)
	if e == nil {
		return ErrNoEffects
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, effect)
	return nil
}
