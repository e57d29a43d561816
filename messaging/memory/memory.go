// Package memory is a broker inside the process, with the semantics of the RabbitMQ adapter: queues per group, topic
// patterns, competing consumers, redelivery, delayed retries, dead letters, and bounded queues that push back.
//
//	broker, err := memory.New(memory.Config{Source: "orders"})
//
// It keeps nothing across a restart of the process: an outbox in front of it does.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

const scope = "github.com/sillar-go/sillar/messaging/memory"

// Config tunes a Broker. The zero value is useful for a program of one service.
type Config struct {
	// Source names the service in events that do not name one. Default "memory".
	Source string
	// MaxQueue is how many messages a queue holds, delayed and unsettled ones included, before Publish waits.
	// Default 10000; negative: no limit. More takes more memory, and bursts longer to push back.
	MaxQueue int
	// MaxDeadLetters is how many dead letters a group keeps; the oldest goes first, and is logged. Default 10000;
	// negative: no limit.
	MaxDeadLetters int
	// Logger gets dead letters that are dropped (error). Default slog.Default().
	Logger *slog.Logger
	// TracerProvider makes a producer span for each event that is published. Default the global one.
	TracerProvider trace.TracerProvider
	// Propagator writes correlation id and trace into the headers. Default both.
	Propagator propagation.TextMapPropagator
}

// Broker is the broker. It is safe for concurrent use.
type Broker struct {
	cfg      Config
	producer driver.Producer

	mu     sync.Mutex
	closed bool
	queues map[string]*queue
	// changed is closed and replaced when room or a message appears: waiting needs a channel to honour contexts.
	changed chan struct{}
	timers  map[*time.Timer]struct{}
}

// partition returns the partition of a message, one of n.
func partition(e messaging.Envelope, n int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(e.Key)) // it never fails
	return int(h.Sum32() % uint32(n))
}

// New makes a broker.
func New(cfg Config) (*Broker, error) {
	if cfg.Source == "" {
		cfg.Source = "memory"
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.MaxQueue = limit(cfg.MaxQueue)
	cfg.MaxDeadLetters = limit(cfg.MaxDeadLetters)
	producer := driver.NewProducer(cfg.TracerProvider, cfg.Propagator, scope, "memory", cfg.Source).Delayed()
	return &Broker{cfg: cfg, producer: producer, queues: map[string]*queue{}, changed: make(chan struct{}),
		timers: map[*time.Timer]struct{}{}}, nil
}

func limit(n int) int {
	switch {
	case n == 0:
		return 10000
	case n < 0:
		return math.MaxInt
	}
	return n
}

// Must returns b or panics with err.
func Must(b *Broker, err error) *Broker {
	if err != nil {
		panic(err)
	}
	return b
}

var _ messaging.Broker = (*Broker)(nil)

// Features implements messaging.Featured.
func (b *Broker) Features() messaging.Features {
	return messaging.Features{Unroutable: true, Delays: true, AnyHash: true, SingleActive: true, Ephemeral: true,
		Partitions: true, DelayedPublish: true}
}

// Publish implements messaging.Publisher: nil means that every queue bound to the topic holds the message.
func (b *Broker) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	e, span, err := b.producer.New(ctx, topic, payload, opts...)
	if err == nil {
		err = b.publish(ctx, e)
	}
	b.producer.End(span, err)
	return err
}

// PublishBatch implements messaging.Publisher.
func (b *Broker) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	errs := make([]error, len(events))
	fill := b.producer.Fill(ctx)
	for i, e := range events {
		e, span, err := fill(e)
		if err == nil {
			err = b.publish(ctx, e)
		}
		b.producer.End(span, err)
		errs[i] = err
	}
	return driver.Batch(errs)
}

func (b *Broker) publish(ctx context.Context, e messaging.Envelope) error {
	for {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return messaging.ErrClosed
		}
		bound, full := b.bound(e.Type)
		if len(bound) == 0 {
			b.mu.Unlock()
			return fmt.Errorf("%w: %s", messaging.ErrUnroutable, e.Type)
		}
		if full == nil {
			delay := time.Until(e.DeliverAt)
			e.DeliverAt = time.Time{}
			for _, q := range bound {
				b.pushAfter(q, delay, clone(e), 1, 0)
			}
			b.wake()
			b.mu.Unlock()
			return nil
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: queue %s holds %d messages: %w", messaging.ErrBlocked, full.name, b.cfg.MaxQueue, ctx.Err())
		}
	}
}

// pushAfter adds a message to the end of a queue after a delay. The mutex is held.
func (b *Broker) pushAfter(q *queue, delay time.Duration, e messaging.Envelope, attempt, unhandled int) {
	if delay <= 0 {
		q.push(e, attempt, unhandled)
		return
	}
	q.delayed++
	var t *time.Timer
	t = time.AfterFunc(delay, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.timers, t)
		q.delayed--
		q.push(e, attempt, unhandled)
		b.wake()
	})
	b.timers[t] = struct{}{}
}

// bound returns the queues that take a topic, and one of them that is full.
func (b *Broker) bound(topic string) (bound []*queue, full *queue) {
	for _, q := range b.queues {
		for _, p := range q.patterns {
			if driver.Match(p, topic) {
				bound = append(bound, q)
				if q.size() >= b.cfg.MaxQueue {
					full = q
				}
				break
			}
		}
	}
	return bound, full
}

// wake wakes the waiting goroutines, because something changed. The mutex is held.
func (b *Broker) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Subscribe implements messaging.Subscriber. The queue outlives the stream, as a durable one does.
func (b *Broker) Subscribe(_ context.Context, s messaging.Subscription) (messaging.Stream, error) {
	if err := driver.Check(s, b.Features()); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, messaging.ErrClosed
	}
	if s.Ephemeral {
		s.Group += "." + id.New()
	}
	q := b.queue(s.Group)
	for _, p := range s.Patterns {
		if !slices.Contains(q.patterns, p) {
			q.patterns = append(q.patterns, p)
		}
	}
	opened := &stream{b: b, q: q, prefetch: max(s.Prefetch, 1), single: s.SingleActive, ephemeral: s.Ephemeral,
		partitions: s.Partitions, out: map[*delivery]struct{}{}}
	q.streams = append(q.streams, opened)
	return opened, nil
}

func (b *Broker) queue(name string) *queue {
	q := b.queues[name]
	if q == nil {
		q = &queue{name: name}
		b.queues[name] = q
	}
	return q
}

// DeadLetters implements messaging.Broker.
func (b *Broker) DeadLetters(_ context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[group]
	if q == nil {
		return nil, nil
	}
	var out []messaging.DeadLetter
	for _, d := range q.dead[:min(max(limit, 0), len(q.dead))] {
		d.Envelope = clone(d.Envelope)
		out = append(out, d)
	}
	return out, nil
}

// Redrive implements messaging.Broker.
func (b *Broker) Redrive(_ context.Context, group string, limit int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[group]
	if q == nil {
		return 0, nil
	}
	n := min(max(limit, 0), len(q.dead))
	for _, d := range q.dead[:n] {
		q.push(d.Envelope, 1, 0)
	}
	q.dead = slices.Clone(q.dead[n:])
	b.wake()
	return n, nil
}

// Health implements messaging.Broker.
func (b *Broker) Health(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return messaging.ErrClosed
	}
	return nil
}

// Close implements messaging.Broker. What the queues hold is dropped.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		for t := range b.timers {
			t.Stop()
		}
		b.wake()
	}
	return nil
}
