package live

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/sillar-go/sillar/messaging"
)

// Modes of the broker.
const (
	brokerUp    = "up"
	brokerTwice = "twice" // every batch of events is delivered twice, as a broker may that lost a confirm
	brokerDown  = "down"
)

// Broker wraps the broker of the shop and injects faults. While it is down it accepts and delivers no messages, and
// Health returns an error. Messages that were delivered before can still be settled.
type Broker struct {
	messaging.Broker

	mu      sync.Mutex
	mode    string
	changed chan struct{} // closed and replaced with the mode
}

// NewBroker puts a Broker before another one, which the caller closes.
func NewBroker(inner messaging.Broker) *Broker {
	return &Broker{Broker: inner, mode: brokerUp, changed: make(chan struct{})}
}

func (b *Broker) set(mode string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mode != mode {
		b.mode = mode
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

func (b *Broker) is() (mode string, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mode, b.changed
}

// down returns an error while the broker is down.
func (b *Broker) down() error {
	if mode, _ := b.is(); mode == brokerDown {
		return fmt.Errorf("%w: a fault is injected", messaging.ErrBlocked)
	}
	return nil
}

// Features implements messaging.Featured.
func (b *Broker) Features() messaging.Features { return messaging.FeaturesOf(b.Broker) }

// Publish implements messaging.Publisher.
func (b *Broker) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	if err := b.down(); err != nil {
		return err
	}
	return b.Broker.Publish(ctx, topic, payload, opts...)
}

// PublishBatch implements messaging.Publisher.
func (b *Broker) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	if err := b.down(); err != nil {
		return err
	}
	err := b.Broker.PublishBatch(ctx, events)
	if mode, _ := b.is(); mode == brokerTwice && err == nil {
		err = b.Broker.PublishBatch(ctx, events)
	}
	return err
}

// Health implements messaging.Broker.
func (b *Broker) Health(ctx context.Context) error {
	if err := b.down(); err != nil {
		return err
	}
	return b.Broker.Health(ctx)
}

// Subscribe implements messaging.Subscriber. It works while the broker is down too: the queues are there.
func (b *Broker) Subscribe(ctx context.Context, s messaging.Subscription) (messaging.Stream, error) {
	inner, err := b.Broker.Subscribe(ctx, s)
	if err != nil {
		return nil, err
	}
	return &stream{Stream: inner, broker: b, stopped: make(chan struct{})}, nil
}

// stream holds back what arrives while the broker is down.
type stream struct {
	messaging.Stream
	broker  *Broker
	once    sync.Once
	stopped chan struct{}
}

// Receive implements messaging.Stream.
func (s *stream) Receive(ctx context.Context) (messaging.Delivery, error) {
	d, err := s.Stream.Receive(ctx)
	if err != nil {
		return nil, err
	}
	for {
		mode, changed := s.broker.is()
		if mode != brokerDown {
			return d, nil
		}
		select {
		case <-changed:
			continue
		case <-s.stopped:
			err = messaging.ErrClosed
		case <-ctx.Done():
			err = ctx.Err()
		}
		if rerr := d.Requeue(context.WithoutCancel(ctx)); rerr != nil && !errors.Is(rerr, messaging.ErrClosed) {
			err = errors.Join(err, rerr)
		}
		return nil, err
	}
}

// Stop implements messaging.Stream.
func (s *stream) Stop() error {
	s.once.Do(func() { close(s.stopped) })
	return s.Stream.Stop()
}

// Close implements messaging.Stream.
func (s *stream) Close() error {
	s.once.Do(func() { close(s.stopped) })
	return s.Stream.Close()
}
