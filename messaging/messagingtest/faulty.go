package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/faultdraw"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// ErrInjected is the error of the faults of Faulty.
var ErrInjected = faultdraw.ErrInjected

// maxLate is how late a message of Faulty is at most.
const maxLate = 2 * time.Second

// Faulty returns a broker over b with the faults of a network. rate is the part of the calls and of the deliveries with
// a fault, such as 0.1:
//
//   - Publish and PublishBatch return an error before or after the message is published. A publisher that tries again
//     after the latter publishes a duplicate.
//   - A delivery is up to 2 s late: others overtake it. Where the broker promises an order, in a group with
//     SingleActive or with Features.OrderByKey, those behind it wait.
//   - Ack, Retry, DeadLetter and Requeue return an error before or after their effect. Before means that the broker
//     delivers the message again.
//
// Subscribe and the methods for operators have no faults. The faults are those of the seed: the n-th publication to a
// topic, and the n-th delivery to a group, always have the same one. Faulty is for tests of a service: run it with many
// seeds, and check what must hold in the end.
func Faulty(b messaging.Broker, seed uint64, rate float64) messaging.Broker {
	return &faulty{b, faultdraw.New(seed, rate)}
}

type faulty struct {
	messaging.Broker
	draw *faultdraw.Draw
}

var _ messaging.Featured = (*faulty)(nil)

// Features implements messaging.Featured.
func (f *faulty) Features() messaging.Features { return messaging.FeaturesOf(f.Broker) }

func (f *faulty) Publish(ctx context.Context, topic string, payload any, opts ...messaging.Option) error {
	err := f.draw.Do("publish "+topic, func() error { return f.Broker.Publish(ctx, topic, payload, opts...) })
	return injected("publish "+topic, err)
}

// injected names the place of an injected error, and leaves others as they are.
func injected(place string, err error) error {
	if errors.Is(err, ErrInjected) {
		return fmt.Errorf("%s: %w", place, err)
	}
	return err
}

func (f *faulty) PublishBatch(ctx context.Context, events []messaging.Envelope) error {
	errs := make([]error, len(events))
	var sent []messaging.Envelope
	var at []int
	var after []int
	for i, e := range events {
		fault := f.draw.At("publish " + e.Type)
		if fault == faultdraw.Before {
			errs[i] = injected("publish "+e.Type, ErrInjected)
			continue
		}
		if fault == faultdraw.After {
			after = append(after, i)
		}
		sent, at = append(sent, e), append(at, i)
	}
	if err := f.Broker.PublishBatch(ctx, sent); err != nil {
		var each *messaging.BatchError
		if !errors.As(err, &each) {
			return err
		}
		for j, err := range each.Errors {
			errs[at[j]] = err
		}
	}
	for _, i := range after {
		if errs[i] == nil {
			errs[i] = injected("publish "+events[i].Type, ErrInjected)
		}
	}
	return driver.Batch(errs)
}

func (f *faulty) Subscribe(ctx context.Context, sub messaging.Subscription) (messaging.Stream, error) {
	s, err := f.Broker.Subscribe(ctx, sub)
	if err != nil {
		return nil, err
	}
	return &faultyStream{Stream: s, f: f, group: sub.Group, ordered: sub.SingleActive || f.Features().OrderByKey}, nil
}

type faultyStream struct {
	messaging.Stream
	f       *faulty
	group   string
	ordered bool

	mu      sync.Mutex
	stopped bool
	late    []lateDelivery // the first that is due first
}

type lateDelivery struct {
	messaging.Delivery
	due time.Time
}

// Receive implements messaging.Stream: a delivery that is late is kept here until it is due.
func (s *faultyStream) Receive(ctx context.Context) (messaging.Delivery, error) {
	for {
		first, due := s.next()
		if due {
			return s.out(first.Delivery), nil
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		if first.Delivery != nil {
			wait, cancel = context.WithDeadline(ctx, first.due)
		}
		if s.ordered && first.Delivery != nil {
			<-wait.Done()
			cancel()
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		}
		d, err := s.Stream.Receive(wait)
		overdue := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err != nil && overdue:
			continue
		case err != nil:
			return nil, err
		}
		if s.f.draw.At("deliver "+s.group) == faultdraw.None {
			return s.out(d), nil
		}
		late := time.Duration(float64(maxLate) * s.f.draw.Part("delay "+s.group))
		if !s.keep(lateDelivery{d, time.Now().Add(late)}) {
			return nil, errors.Join(messaging.ErrClosed, d.Requeue(context.WithoutCancel(ctx)))
		}
	}
}

// next returns the late delivery that is due first, if there is one, and takes it out when it is due.
func (s *faultyStream) next() (first lateDelivery, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.late) == 0 {
		return first, false
	}
	first = s.late[0]
	if due = !first.due.After(time.Now()); due {
		s.late = s.late[1:]
	}
	return first, due
}

func (s *faultyStream) keep(d lateDelivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	i, _ := slices.BinarySearchFunc(s.late, d, func(a, b lateDelivery) int { return a.due.Compare(b.due) })
	s.late = slices.Insert(s.late, i, d)
	return true
}

func (s *faultyStream) out(d messaging.Delivery) messaging.Delivery {
	return &faultyDelivery{d, s.f.draw, s.group}
}

// Stop implements messaging.Stream: what is late has not been received.
func (s *faultyStream) Stop() error {
	s.mu.Lock()
	s.stopped = true
	late := s.late
	s.late = nil
	s.mu.Unlock()
	err := s.Stream.Stop()
	for _, d := range late {
		err = errors.Join(err, d.Requeue(context.Background()))
	}
	return err
}

// Close implements messaging.Stream.
func (s *faultyStream) Close() error {
	s.mu.Lock()
	s.stopped, s.late = true, nil
	s.mu.Unlock()
	return s.Stream.Close()
}

type faultyDelivery struct {
	messaging.Delivery
	draw  *faultdraw.Draw
	group string
}

// settle runs a settlement. Without it the delivery ends with its connection: the broker delivers the message again.
func (d *faultyDelivery) settle(ctx context.Context, method string, run func() error) error {
	place := method + " " + d.group
	switch d.draw.At(place) {
	case faultdraw.Before:
		return errors.Join(injected(place, ErrInjected), d.Delivery.Requeue(ctx))
	case faultdraw.After:
		if err := run(); err != nil {
			return err
		}
		return injected(place, ErrInjected)
	}
	return run()
}

func (d *faultyDelivery) Ack(ctx context.Context) error {
	return d.settle(ctx, "ack", func() error { return d.Delivery.Ack(ctx) })
}

func (d *faultyDelivery) Retry(ctx context.Context, delay time.Duration, reason error) error {
	return d.settle(ctx, "retry", func() error { return d.Delivery.Retry(ctx, delay, reason) })
}

func (d *faultyDelivery) DeadLetter(ctx context.Context, reason error) error {
	return d.settle(ctx, "dead-letter", func() error { return d.Delivery.DeadLetter(ctx, reason) })
}

func (d *faultyDelivery) Requeue(ctx context.Context) error {
	return d.settle(ctx, "requeue", func() error { return d.Delivery.Requeue(ctx) })
}
