package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
)

// DeadLetters implements messaging.Broker.
func (b *Broker) DeadLetters(ctx context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	l, err := b.letters(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("jetstream: dead letters of %s: %w", group, err)
	}
	all, err := l.take(ctx, limit)
	if err != nil {
		return nil, fmt.Errorf("jetstream: dead letters of %s: %w", group, err)
	}
	dead := make([]messaging.DeadLetter, len(all))
	for i, raw := range all {
		m := message(raw)
		dead[i] = messaging.DeadLetter{Envelope: b.decode(m), Reason: value(m, headerReason),
			Attempts: number(m, headerAttempts), Origin: value(m, headerOrigin)}
	}
	return dead, nil
}

// redriveBatch is how many dead letters are moved together.
const redriveBatch = 100

// Redrive implements messaging.Broker. It moves letters in batches: they are deleted when their copies are confirmed.
// When some of a batch cannot be moved, the others are, and their number is returned with the error. Letters of a group
// whose consumer was deleted stay, with an ErrTopology, until the group is subscribed again.
func (b *Broker) Redrive(ctx context.Context, group string, limit int) (moved int, err error) {
	l, err := b.letters(ctx, group)
	var failed error
	for n := 1; err == nil && n > 0 && limit > 0; {
		var batch []*jetstream.RawStreamMsg
		if batch, err = l.take(ctx, min(limit, redriveBatch)); err != nil || len(batch) == 0 {
			break
		}
		if moved == 0 {
			if err = b.consumes(ctx, group); err != nil {
				break
			}
		}
		limit -= len(batch)
		var one error
		if n, one, err = b.moveLetters(ctx, group, l.stream, batch); failed == nil {
			failed = one
		}
		moved += n
	}
	if err == nil {
		err = failed
	}
	if err != nil {
		return moved, fmt.Errorf("jetstream: redrive %s: %w", group, err)
	}
	return moved, nil
}

// moveLetters publishes copies of letters to their group, and deletes those whose copies are confirmed. It returns how
// many these are, the first error of the others, and the error of deleting.
func (b *Broker) moveLetters(ctx context.Context, group string, s jetstream.Stream, batch []*jetstream.RawStreamMsg) (
	moved int, failed, err error) {
	o := &outgoing{msgs: make([]*nats.Msg, len(batch)), errs: make([]error, len(batch))}
	for i, raw := range batch {
		o.msgs[i] = b.copy(b.retrySubject(group), "redrive", group, raw.Sequence, raw.Time, b.decode(message(raw)))
	}
	b.send(ctx, o)
	var done []uint64
	for i, err := range o.errs {
		if err == nil {
			done = append(done, batch[i].Sequence)
		} else if failed == nil {
			failed = err
		}
	}
	err = b.call(ctx, func(ctx context.Context) error {
		errs := make([]error, len(done))
		var all sync.WaitGroup
		for i, seq := range done {
			all.Go(func() { errs[i] = none(s.DeleteMsg(ctx, seq)) }) // another Redrive may have moved it
		}
		all.Wait()
		return errors.Join(errs...)
	})
	if err != nil {
		return 0, failed, err
	}
	return len(done), failed, nil
}

// consumes returns an error when a group has no consumer: the stream confirms messages to the group's subject all the
// same, and drops them.
func (b *Broker) consumes(ctx context.Context, group string) error {
	return b.call(ctx, func(ctx context.Context) error {
		js, err := b.ready(ctx)
		if err == nil {
			_, err = js.Consumer(ctx, b.cfg.Stream, token(group))
		}
		return err
	})
}

// letters are the dead letters of a group that there are by now.
type letters struct {
	b          *Broker
	subject    string
	stream     jetstream.Stream
	next, last uint64
}

func (b *Broker) letters(ctx context.Context, group string) (*letters, error) {
	js, err := b.ready(ctx)
	if err != nil {
		return nil, err
	}
	l := &letters{b: b, subject: b.deadSubject(group), next: 1}
	err = b.call(ctx, func(ctx context.Context) (err error) {
		if l.stream, err = js.Stream(ctx, b.deadStream()); err != nil {
			return err
		}
		last, err := l.stream.GetLastMsgForSubject(ctx, l.subject)
		if err == nil {
			l.last = last.Sequence
		}
		return none(err)
	})
	return l, err
}

// take returns up to n more letters, oldest first.
func (l *letters) take(ctx context.Context, n int) (batch []*jetstream.RawStreamMsg, err error) {
	for len(batch) < n && l.next <= l.last {
		var raw *jetstream.RawStreamMsg
		err := l.b.call(ctx, func(ctx context.Context) (err error) {
			raw, err = l.stream.GetMsg(ctx, l.next, jetstream.WithGetMsgSubject(l.subject))
			return none(err)
		})
		if err != nil {
			return nil, err
		}
		if raw == nil || raw.Sequence > l.last { // another Redrive has moved the rest
			l.next = l.last + 1
			break
		}
		batch = append(batch, raw)
		l.next = raw.Sequence + 1
	}
	return batch, nil
}

func message(raw *jetstream.RawStreamMsg) *nats.Msg {
	return &nats.Msg{Subject: raw.Subject, Header: raw.Header, Data: raw.Data}
}

// none takes the absence of a message as no error.
func none(err error) error {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}
