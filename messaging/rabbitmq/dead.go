package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// DeadLetters implements messaging.Broker. While it looks, the letters are invisible to others.
func (b *Broker) DeadLetters(ctx context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	dead, err := withChannel(ctx, b.con, func(ch *ownChannel) ([]messaging.DeadLetter, error) {
		var dead []messaging.DeadLetter
		var last uint64
		for len(dead) < limit {
			d, ok, err := ch.get(ctx, deadQueue(group))
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			last = d.DeliveryTag
			dead = append(dead, deadLetter(d, group))
		}
		if last > 0 {
			return dead, ch.call(ctx, func() error { return ch.Nack(last, true, true) })
		}
		return dead, nil
	})
	if err != nil && !noQueue(err) {
		return nil, fmt.Errorf("rabbitmq: dead letters of %s: %w", group, err)
	}
	return dead, nil
}

// noQueue reports whether the server says that a queue does not exist.
func noQueue(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == amqp.NotFound
}

func deadLetter(d *amqp.Delivery, group string) messaging.DeadLetter {
	e, attempts := decode(d)
	l := messaging.DeadLetter{Envelope: e, Attempts: attempts, Origin: group}
	if s, ok := text(d.Headers[headerOrigin]); ok {
		l.Origin = s
	}
	if s, ok := text(d.Headers[headerReason]); ok {
		l.Reason = s
	} else if s, ok := text(d.Headers[headerDeath]); ok {
		l.Reason = "the server gave it up: " + s
	}
	return l
}

// How long Redrive looks at an empty queue before it believes it.
const (
	emptyTries = 3
	emptyPause = 30 * time.Millisecond
)

// messageID identifies an event: an id is unique within its source only.
type messageID struct{ source, id string }

// Redrive implements messaging.Broker. A letter leaves the dead letters when its new copy is confirmed; when it fails
// halfway the number of those that were moved is returned with the error.
func (b *Broker) Redrive(ctx context.Context, group string, limit int) (int, error) {
	exchange := ""
	if partitioned, err := b.isPartitioned(ctx, group); err != nil {
		return 0, fmt.Errorf("rabbitmq: redrive %s: %w", group, err)
	} else if partitioned {
		exchange = partitionExchange(group)
	}
	n, err := withChannel(ctx, b.con, func(ch *ownChannel) (int, error) {
		// The letters that are there at the start are moved, and not those that die again meanwhile.
		var there amqp.Queue
		if err := ch.call(ctx, func() (err error) {
			there, err = ch.QueueDeclarePassive(deadQueue(group), true, false, false, false, nil)
			return err
		}); err != nil {
			return 0, err
		}
		seen := map[messageID]int{}
		moved, empty := 0, 0
		for moved < limit {
			d, ok, err := ch.get(ctx, deadQueue(group))
			if err != nil {
				return moved, err
			}
			if !ok { // a quorum queue takes a moment to show what DeadLetters gave back
				if empty++; empty > emptyTries {
					return moved, nil
				}
				if err := backoff.Sleep(ctx, emptyPause); err != nil {
					return moved, err
				}
				continue
			}
			e, _ := decode(d)
			id := messageID{e.Source, e.ID}
			if e.ID != "" && seen[id] > 0 && moved >= there.Messages { // moved by this call, and dead again
				return moved, ch.call(ctx, func() error { return ch.Nack(d.DeliveryTag, false, true) })
			}
			seen[id]++
			msg := copyForQueue(d, e)
			if exchange != "" {
				setSlot(msg.Headers, e.Key)
			}
			if c, _, _ := b.con.state(); c != nil && c.headerOverflow(&msg) > 0 {
				return moved, fmt.Errorf("%w: the headers of %s leave no room to move it", messaging.ErrInvalid, e.ID)
			}
			if err := b.pub.one(ctx, exchange, group, msg); err != nil {
				return moved, err
			}
			if err := ch.call(ctx, func() error { return ch.Ack(d.DeliveryTag, false) }); err != nil {
				return moved, err
			}
			moved++
		}
		return moved, nil
	})
	if err != nil && !noQueue(err) {
		return n, fmt.Errorf("rabbitmq: redrive %s: %w", group, err)
	}
	return n, nil
}
