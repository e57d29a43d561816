package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// Receive implements messaging.Stream.
func (s *stream) Receive(ctx context.Context) (messaging.Delivery, error) {
	for {
		s.mu.Lock()
		g, err, changed := s.cur, s.err, s.changed
		s.mu.Unlock()
		switch {
		case s.ctx.Err() != nil:
			return nil, messaging.ErrClosed
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		var deliveries <-chan amqp.Delivery // nil, which is never ready, where there is no channel or it has ended
		if g != nil && !g.ended {
			deliveries = g.deliveries
		}
		select {
		case raw, ok := <-deliveries:
			if !ok {
				g.ended = true // the next one comes with a change
				continue
			}
			if d := s.received(g, raw); d != nil {
				return d, nil
			}
		case <-changed:
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
	}
}

// received makes a delivery for the caller of Receive, or nil when it is not for a handler.
func (s *stream) received(g *generation, raw amqp.Delivery) *delivery {
	if g.dead() {
		return nil // it could not be settled, and comes again
	}
	if s.sub.Partitions > 0 && raw.Exchange == partitionExchange(s.sub.Group) {
		raw.Exchange = "" // a message that was moved, as to a queue by name
	}
	d := newDelivery(s, g, raw)
	if s.stray && raw.Exchange == s.b.cfg.Exchange && !s.takes(d.e.Type) {
		_ = d.Ack(s.ctx) // else it comes again
		return nil
	}
	if wait := number(raw.Headers[headerWait]); wait > 0 {
		go d.waitOn(time.Duration(wait) * time.Second)
		return nil
	}
	return d
}

// takes reports whether the group has a pattern for a topic.
func (s *stream) takes(topic string) bool {
	return slices.ContainsFunc(s.sub.Patterns, func(p string) bool { return driver.Match(p, topic) })
}

// Stop implements messaging.Stream.
func (s *stream) Stop() error {
	s.cancel()
	<-s.done
	s.mu.Lock()
	g := s.cur
	s.mu.Unlock()
	if g == nil || g.dead() {
		return nil
	}
	if s.oneActive() {
		return nil // Close ends the channel: before, the next consumer would overtake running handlers
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectionCloseTimeout)
	defer cancel()
	_, err := rpc(ctx, g.c, func() (struct{}, error) { return struct{}{}, g.ch.Cancel(consumerTag, false) }, nil)
	if err == nil {
		err = g.giveBackRest(ctx)
	}
	if err == nil {
		return nil
	}
	if g.dead() || errors.Is(err, amqp.ErrClosed) {
		return nil // the server gives back by itself
	}
	return fmt.Errorf("rabbitmq: stop consuming from %s: %w", s.sub.Group, err)
}

// Close implements messaging.Stream.
func (s *stream) Close() error {
	err := s.Stop()
	s.b.mu.Lock()
	delete(s.b.streams, s)
	s.b.mu.Unlock()
	s.mu.Lock()
	g := s.cur
	s.cur = nil
	s.mu.Unlock()
	if g == nil || g.dead() {
		return err
	}
	g.flush(connectionCloseTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), connectionCloseTimeout)
	defer cancel()
	if s.sub.Ephemeral {
		_, derr := rpc(ctx, g.c, func() (int, error) { return g.ch.QueueDelete(s.sub.Group, false, false, false) }, nil)
		if derr != nil && !g.dead() { // the server removes it in a while
			s.b.cfg.Logger.Warn("rabbitmq: the queue of an ephemeral group was not deleted", "group", s.sub.Group, "error", derr)
		}
	}
	_, cerr := rpc(ctx, g.c, func() (struct{}, error) { return struct{}{}, g.ch.Close() }, nil)
	if cerr == nil || g.dead() || errors.Is(cerr, amqp.ErrClosed) {
		return err
	}
	return errors.Join(err, fmt.Errorf("rabbitmq: close the consumer of %s: %w", s.sub.Group, cerr))
}
