package memory

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// stream is one consumer of a queue. Its fields are guarded by the broker's mutex.
type stream struct {
	b        *Broker
	q        *queue
	prefetch int
	stopped  bool
	single   bool // receives only while it is the oldest of the queue
	// partitions is how many the keys are divided among, or 0.
	partitions int
	// ephemeral: the queue is this stream's, and is removed with it.
	ephemeral bool
	out       map[*delivery]struct{}
}

// Receive implements messaging.Stream.
func (s *stream) Receive(ctx context.Context) (messaging.Delivery, error) {
	defer s.leave()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.b.mu.Lock()
		if s.stopped || s.b.closed {
			s.b.mu.Unlock()
			return nil, messaging.ErrClosed
		}
		if len(s.out) < s.prefetch {
			if it, ok := s.q.next(s); ok {
				d := &delivery{s: s, item: it}
				s.q.unacked++
				s.out[d] = struct{}{}
				s.b.mu.Unlock()
				return d, nil
			}
		}
		changed := s.b.changed
		s.b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// leave lets the next stream of the queue take a message.
func (s *stream) leave() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.q.leave(s) {
		s.b.wake()
	}
}

// Stop implements messaging.Stream.
func (s *stream) Stop() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.stopped = true
	s.b.wake()
	return nil
}

// Close implements messaging.Stream.
func (s *stream) Close() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.stopped = true
	for d := range s.out {
		s.q.giveBack(d.item)
		s.q.unacked--
	}
	clear(s.out)
	if s.ephemeral {
		delete(s.b.queues, s.q.name)
	}
	s.q.streams = slices.DeleteFunc(s.q.streams, func(other *stream) bool { return other == s })
	s.b.wake()
	return nil
}

type delivery struct {
	s *stream
	item
}

// Envelope implements messaging.Delivery.
func (d *delivery) Envelope() messaging.Envelope { return d.e }

// Attempt implements messaging.Delivery.
func (d *delivery) Attempt() int { return d.attempt }

// Advance implements messaging.Delivery.
func (d *delivery) Advance() { d.attempt++ }

// Unhandled implements messaging.Delivery.
func (d *delivery) Unhandled() int { return d.unhandled }

// settle runs then with the mutex held, unless the delivery has been settled or given back.
func (d *delivery) settle(then func(b *Broker, q *queue)) error {
	b := d.s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := d.s.out[d]; !ok || b.closed {
		return messaging.ErrClosed
	}
	delete(d.s.out, d)
	d.s.q.unacked--
	then(b, d.s.q)
	b.wake()
	return nil
}

// Ack implements messaging.Delivery.
func (d *delivery) Ack(context.Context) error { return d.settle(func(*Broker, *queue) {}) }

// Requeue implements messaging.Delivery.
func (d *delivery) Requeue(context.Context) error {
	return d.settle(func(_ *Broker, q *queue) { q.giveBack(d.item) })
}

// Retry implements messaging.Delivery.
func (d *delivery) Retry(_ context.Context, delay time.Duration, reason error) error {
	attempt, unhandled := d.attempt+1, d.unhandled
	if errors.Is(reason, messaging.ErrNoHandler) {
		attempt, unhandled = d.attempt, d.unhandled+1
	}
	return d.settle(func(b *Broker, q *queue) { b.pushAfter(q, delay, d.e, attempt, unhandled) })
}

// DeadLetter implements messaging.Delivery.
func (d *delivery) DeadLetter(_ context.Context, reason error) error {
	return d.settle(func(b *Broker, q *queue) {
		l := messaging.DeadLetter{Envelope: d.e, Attempts: d.attempt, Origin: q.name}
		if reason != nil {
			l.Reason = reason.Error()
		}
		if d.s.ephemeral {
			b.cfg.Logger.Error("memory: a message of an ephemeral group was dropped", "group", q.name, "message_id", d.e.ID,
				"error", reason)
			return
		}
		if len(q.dead) >= b.cfg.MaxDeadLetters {
			b.cfg.Logger.Error("memory: a dead letter was dropped for lack of room", "group", q.name, "message_id", q.dead[0].ID)
			q.dead = q.dead[1:]
		}
		q.dead = append(q.dead, l)
	})
}
