package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// letters takes dead letters off their queue. Those that are not acknowledged go back to their places with the end of
// the channel.
type letters struct {
	ch         *ownChannel
	queue      string
	deliveries <-chan amqp.Delivery
	closed     <-chan *amqp.Error
	atStart    int // how many were to be had
	taken      int
	seen       map[messageID]bool
}

// messageID identifies an event: an id is unique within its source only.
type messageID struct{ source, id string }

// letterTag names the consumer: a tag is unique within its channel only.
const letterTag = "letters"

// consumeLetters begins to take the dead letters of a group, with up to prefetch of them (0: any number) on their way
// or not acknowledged.
func consumeLetters(ctx context.Context, ch *ownChannel, group string, prefetch int) (l *letters, err error) {
	l = &letters{ch: ch, queue: deadQueue(group), closed: ch.NotifyClose(make(chan *amqp.Error, 1)),
		seen: map[messageID]bool{}}
	if l.atStart, err = l.waiting(ctx); err != nil {
		return nil, err
	}
	l.deliveries, err = rpc(ctx, ch.c, func() (<-chan amqp.Delivery, error) {
		if err := ch.Qos(prefetch, 0, false); err != nil {
			return nil, err
		}
		return ch.Consume(l.queue, letterTag, false, false, false, false, nil)
	}, nil)
	return l, err
}

// waiting returns how many letters are in the queue and with no consumer.
func (l *letters) waiting(ctx context.Context) (int, error) {
	q, err := rpc(ctx, l.ch.c, func() (amqp.Queue, error) {
		return l.ch.QueueDeclarePassive(l.queue, true, false, false, false, nil)
	}, nil)
	return q.Messages, err
}

// How often, and after what pause, the queue has to be empty before next believes it: a quorum queue takes a moment to
// show what was given back.
const (
	emptyTries = 3
	emptyPause = 30 * time.Millisecond
)

// next returns the next letter, or nil when there is none.
func (l *letters) next(ctx context.Context) (*amqp.Delivery, error) {
	pause := time.NewTimer(emptyPause)
	defer pause.Stop()
	for empty, begin := 0, time.Now(); ; pause.Reset(emptyPause) {
		select {
		case d, ok := <-l.deliveries:
			if !ok {
				return nil, l.why()
			}
			return &d, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-pause.C:
		}
		n, err := l.waiting(ctx)
		if err != nil {
			return nil, err
		}
		if n > 0 { // they are on their way
			if time.Since(begin) > rpcTimeout {
				return nil, errSilent
			}
			empty = 0
		} else if empty++; empty > emptyTries {
			return nil, nil
		}
	}
}

// take returns the next letters, up to n and fewer when there are no more. The letters that were there at the start are
// among them, and those that were moved since and have died again are not.
func (l *letters) take(ctx context.Context, n int) (batch []*amqp.Delivery, err error) {
	for len(batch) < n {
		d, err := l.next(ctx)
		if err != nil {
			return nil, err
		}
		if d == nil {
			break
		}
		e, _ := decode(d)
		id := messageID{e.Source, e.ID}
		if e.ID != "" && l.seen[id] && l.taken >= l.atStart { // it is given back
			break
		}
		l.seen[id] = true
		l.taken++
		batch = append(batch, d)
	}
	return batch, nil
}

// giveBack ends the consumer and puts letters up to last back.
func (l *letters) giveBack(ctx context.Context, last uint64) error {
	return l.ch.call(ctx, func() error {
		if err := l.ch.Cancel(letterTag, false); err != nil || last == 0 {
			return err
		}
		return l.ch.Nack(last, true, true)
	})
}

// why returns what ended the consumer.
func (l *letters) why() error {
	select {
	case err := <-l.closed:
		if err != nil {
			return err
		}
	default:
	}
	return fmt.Errorf("%w: %s", errCancelled, l.queue)
}
