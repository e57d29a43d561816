package messagingtest_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// broken is a broker with a bug.
type broken struct {
	messaging.Broker
	ctx context.Context

	change                    func(e *messaging.Envelope) // of what comes
	batch                     func(events []messaging.Envelope)
	publish                   func(e messaging.Envelope, err error) error
	drop                      func() bool
	group, pattern            func(string) string
	retry                     func(d messaging.Delivery, delay time.Duration) error
	requeue                   func(d messaging.Delivery) error
	closing, stopping         func(s *stream) error
	reason                    error
	prefetch                  int
	redriven, newest, orphans bool // Redrive says so; DeadLetters turns them round; a queue dies with its consumer
	swap, swallow             bool // Receive swaps; it takes messages after its caller has left
	hasty                     bool // Publish ignores the time of delivery
	forgetful                 bool // a delivery does not count the attempts made in place
	anywhere, whole           bool // Subscribe ignores the start position, or the number of partitions

	mu  sync.Mutex
	all int // open streams
}

func (b *broken) Features() messaging.Features { return messaging.FeaturesOf(b.Broker) }

func (b *broken) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	b.mu.Lock()
	orphan := b.orphans && b.all == 0
	b.mu.Unlock()
	if orphan || b.drop != nil && b.drop() {
		return nil
	}
	if b.hasty {
		opts = append(opts, messaging.WithDeliverAt(time.Time{}))
	}
	err := b.Broker.Publish(ctx, topic, payload, opts...)
	if b.publish != nil {
		err = b.publish(messaging.Envelope{Type: topic}, err)
	}
	return err
}

func (b *broken) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	events = slices.Clone(events)
	if b.batch != nil {
		b.batch(events)
	}
	return b.Broker.PublishBatch(ctx, events)
}

func (b *broken) Subscribe(ctx context.Context, s messaging.Subscription) (messaging.Stream, error) {
	if b.group != nil {
		s.Group = b.group(s.Group)
	}
	if b.pattern != nil {
		s.Patterns = slices.Clone(s.Patterns)
		for i, p := range s.Patterns {
			s.Patterns[i] = b.pattern(p)
		}
	}
	s.Prefetch = max(s.Prefetch, b.prefetch)
	if b.anywhere {
		s.Start = messaging.Start{}
	}
	if b.whole {
		s.Partitions = 0
	}
	inner, err := b.Broker.Subscribe(ctx, s)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all++
	return &stream{Stream: inner, b: b}, nil
}

func (b *broken) DeadLetters(ctx context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	dead, err := b.Broker.DeadLetters(ctx, group, limit)
	if b.newest {
		slices.Reverse(dead)
	}
	return dead, err
}

func (b *broken) Redrive(ctx context.Context, group string, limit int) (int, error) {
	if b.redriven {
		return limit, nil
	}
	return b.Broker.Redrive(ctx, group, limit)
}

type stream struct {
	messaging.Stream
	b      *broken
	mu     sync.Mutex
	held   []messaging.Delivery
	second messaging.Delivery
	lost   chan error // of a Receive that was given up
}

func (s *stream) ackAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.held {
		_ = d.Ack(s.b.ctx)
	}
}

func (s *stream) Receive(ctx context.Context) (messaging.Delivery, error) {
	if d := s.second; d != nil {
		s.second = nil
		return d, nil
	}
	if s.b.swallow {
		if s.lost != nil { // it comes first, and what it gets is gone
			select {
			case <-s.lost:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		come := make(chan error, 1)
		var d messaging.Delivery
		go func() { var err error; d, err = s.Stream.Receive(s.b.ctx); come <- err }()
		select {
		case err := <-come:
			return s.wrap(d), err
		case <-ctx.Done():
			s.lost = come
			return nil, ctx.Err()
		}
	}
	d, err := s.Stream.Receive(ctx)
	if err != nil {
		return nil, err
	}
	if s.b.swap {
		short, cancel := context.WithTimeout(ctx, 2*time.Millisecond)
		defer cancel()
		if later, err := s.Stream.Receive(short); err == nil {
			s.second = s.wrap(d)
			return s.wrap(later), nil
		}
	}
	return s.wrap(d), nil
}

func (s *stream) wrap(d messaging.Delivery) messaging.Delivery {
	if d == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, d)
	return &delivery{d, s.b}
}

func (s *stream) Stop() error {
	if s.b.stopping != nil {
		return s.b.stopping(s)
	}
	return s.Stream.Stop()
}

func (s *stream) Close() error {
	s.b.mu.Lock()
	s.b.all--
	s.b.mu.Unlock()
	if s.b.closing != nil {
		return s.b.closing(s)
	}
	return s.Stream.Close()
}

type delivery struct {
	messaging.Delivery
	b *broken
}

func (d *delivery) Envelope() messaging.Envelope {
	e := d.Delivery.Envelope()
	e.Headers = maps.Clone(e.Headers)
	if d.b.change != nil {
		d.b.change(&e)
	}
	return e
}

func (d *delivery) Advance() {
	if !d.b.forgetful {
		d.Delivery.Advance()
	}
}

func (d *delivery) Retry(ctx context.Context, delay time.Duration, reason error) error {
	if d.b.retry != nil {
		return d.b.retry(d.Delivery, delay)
	}
	return d.Delivery.Retry(ctx, delay, reason)
}

func (d *delivery) Requeue(ctx context.Context) error {
	if d.b.requeue != nil {
		return d.b.requeue(d.Delivery)
	}
	return d.Delivery.Requeue(ctx)
}

func (d *delivery) DeadLetter(ctx context.Context, reason error) error {
	if d.b.reason != nil {
		reason = d.b.reason
	}
	return d.Delivery.DeadLetter(ctx, reason)
}
