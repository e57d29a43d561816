package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// ErrInUse is returned by DeleteGroup when a queue of the group has consumers or messages.
var ErrInUse = errors.New("rabbitmq: the group has consumers or messages")

// Unbind removes patterns from a group's queue, such as those that its handlers no longer have: events of them do not
// reach it any more. A pattern that is not bound is no error. A consumer binds the patterns of its handlers again every
// 30 seconds, so processes that still have them are stopped first.
func (b *Broker) Unbind(ctx context.Context, group string, patterns ...string) error {
	if err := driver.Check(messaging.Subscription{Group: group, Patterns: patterns}, messaging.Features{}); err != nil {
		return err
	}
	partitioned, err := b.isPartitioned(ctx, group)
	if err != nil {
		return fmt.Errorf("rabbitmq: unbind %s: %w", group, err)
	}
	_, err = withChannel(ctx, b.con, func(ch *ownChannel) (struct{}, error) {
		for _, p := range patterns {
			unbind := func() error { return ch.QueueUnbind(group, p, b.cfg.Exchange, nil) }
			if partitioned {
				unbind = func() error { return ch.ExchangeUnbind(partitionExchange(group), p, b.cfg.Exchange, false, nil) }
			}
			if err := ch.call(ctx, unbind); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	if err != nil && !noQueue(err) {
		return fmt.Errorf("rabbitmq: unbind %s: %w", group, err)
	}
	return nil
}

// DeleteGroup deletes the queues of a group: its own, those of its retries and that of its dead letters. It deletes
// none and returns ErrInUse when one of them has messages or consumers; what is published to the group meanwhile is
// lost, so Unbind comes first. A group that does not exist is no error.
func (b *Broker) DeleteGroup(ctx context.Context, group string) error {
	if err := driver.Check(messaging.Subscription{Group: group}, messaging.Features{}); err != nil {
		return err
	}
	queues := []string{group, deadQueue(group)}
	for _, d := range delays {
		queues = append(queues, retryQueue(group, d))
	}
	for d := day; d <= maxDelay; d += day {
		queues = append(queues, retryQueue(group, d))
	}
	partitioned, err := b.isPartitioned(ctx, group)
	if err != nil {
		return fmt.Errorf("rabbitmq: delete %s: %w", group, err)
	}
	var there []string
	if partitioned {
		there = append(there, partitionQueue(group, members))
	}
	for n := 0; partitioned; n++ {
		exists, err := b.unused(ctx, partitionQueue(group, n))
		if err != nil {
			return fmt.Errorf("rabbitmq: delete %s: %w", group, err)
		}
		if !exists {
			break
		}
		there = append(there, partitionQueue(group, n))
	}
	for _, q := range queues {
		exists, err := b.unused(ctx, q)
		if err != nil {
			return fmt.Errorf("rabbitmq: delete %s: %w", group, err)
		}
		if exists {
			there = append(there, q)
		}
	}
	_, err = withChannel(ctx, b.con, func(ch *ownChannel) (struct{}, error) {
		if partitioned {
			for _, x := range []string{partitionExchange(group), restExchange(group)} {
				if err := ch.call(ctx, func() error { return ch.ExchangeDelete(x, false, false) }); err != nil {
					return struct{}{}, err
				}
			}
		}
		for _, q := range there {
			if err := ch.call(ctx, func() error { _, err := ch.QueueDelete(q, false, false, false); return err }); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("rabbitmq: delete %s: %w", group, err)
	}
	return nil
}

// unused reports whether a queue exists, and returns ErrInUse when it has messages or consumers. A missing queue ends
// the channel, so each has its own.
func (b *Broker) unused(ctx context.Context, queue string) (exists bool, err error) {
	q, err := onChannel(ctx, b.con, func(ch *amqp.Channel) (amqp.Queue, error) {
		return ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	})
	switch {
	case noQueue(err):
		return false, nil
	case err != nil:
		return false, err
	case q.Messages > 0 || q.Consumers > 0:
		return true, fmt.Errorf("%w: %s: %d messages, %d consumers", ErrInUse, queue, q.Messages, q.Consumers)
	}
	return true, nil
}
