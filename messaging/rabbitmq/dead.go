package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// DeadLetters implements messaging.Broker. While it looks, the letters are invisible to others.
func (b *Broker) DeadLetters(ctx context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	if limit <= 0 {
		return nil, nil
	}
	dead, err := withChannel(ctx, b.con, func(ch *ownChannel) ([]messaging.DeadLetter, error) {
		prefetch := limit
		if limit > math.MaxUint16 {
			prefetch = 0 // no bound
		}
		l, err := consumeLetters(ctx, ch, group, prefetch)
		if err != nil {
			return nil, err
		}
		var dead []messaging.DeadLetter
		var last uint64
		for len(dead) < limit {
			d, err := l.next(ctx)
			if err != nil {
				return nil, err
			}
			if d == nil {
				break
			}
			last = d.DeliveryTag
			dead = append(dead, deadLetter(d, group))
		}
		return dead, l.giveBack(ctx, last)
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

// redriveBatch is how many dead letters are moved together: live messages wait for one batch at most.
const redriveBatch = 100

// Redrive implements messaging.Broker. It moves letters in batches: a letter leaves the dead letters when its new copy
// is confirmed. When some of a batch cannot be moved, the others are, and their number is returned with the error.
func (b *Broker) Redrive(ctx context.Context, group string, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	exchange := ""
	if partitioned, err := b.isPartitioned(ctx, group); err != nil {
		return 0, fmt.Errorf("rabbitmq: redrive %s: %w", group, err)
	} else if partitioned {
		exchange = partitionExchange(group)
	}
	n, err := withChannel(ctx, b.con, func(ch *ownChannel) (moved int, err error) {
		l, err := consumeLetters(ctx, ch, group, min(limit, redriveBatch))
		for err == nil && moved < limit {
			var batch []*amqp.Delivery
			want := min(limit-moved, redriveBatch)
			if batch, err = l.take(ctx, want); err != nil {
				break
			}
			var n int
			n, err = b.moveLetters(ctx, ch, batch, exchange, group)
			if moved += n; len(batch) < want {
				break
			}
		}
		return moved, err
	})
	if err != nil && !noQueue(err) {
		return n, fmt.Errorf("rabbitmq: redrive %s: %w", group, err)
	}
	return n, nil
}

// moveLetters publishes copies of letters to their group, and acknowledges those whose copies are confirmed. It returns
// how many these are, and the first error of the others.
func (b *Broker) moveLetters(ctx context.Context, ch *ownChannel, batch []*amqp.Delivery, exchange, group string) (
	moved int, first error) {
	out := make([]outgoing, len(batch))
	errs := b.pub.send(ctx, out, func(i int) error {
		e, _ := decode(batch[i])
		msg := copyForQueue(batch[i], e)
		if exchange != "" {
			setSlot(msg.Headers, e.Key)
		}
		if c, _, _ := b.con.state(); c != nil && c.headerOverflow(&msg) > 0 {
			return fmt.Errorf("%w: the headers of %s leave no room to move it", messaging.ErrInvalid, e.ID)
		}
		out[i] = outgoing{exchange, group, msg}
		return nil
	})
	for _, err := range errs {
		if err == nil {
			moved++
		} else if first == nil {
			first = err
		}
	}
	if moved == 0 {
		return 0, first
	}
	err := ch.call(ctx, func() error {
		if moved == len(batch) {
			return ch.Ack(batch[len(batch)-1].DeliveryTag, true)
		}
		for i, d := range batch {
			if errs[i] == nil {
				if err := ch.Ack(d.DeliveryTag, false); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return moved, errors.Join(first, err)
}
