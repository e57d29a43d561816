package jetstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/messaging"
)

// DeadLetters implements messaging.Broker.
func (b *Broker) DeadLetters(ctx context.Context, group string, limit int) ([]messaging.DeadLetter, error) {
	var dead []messaging.DeadLetter
	err := b.eachDead(ctx, group, limit, func(m *nats.Msg, _ *jetstream.RawStreamMsg, _ jetstream.Stream) error {
		dead = append(dead, messaging.DeadLetter{Envelope: b.decode(m), Reason: value(m, headerReason),
			Attempts: number(m, headerAttempts), Origin: value(m, headerOrigin)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("jetstream: dead letters of %s: %w", group, err)
	}
	return dead, nil
}

// Redrive implements messaging.Broker. A letter is deleted when its new copy is confirmed; when it fails halfway the
// number of those that were moved is returned with the error. Letters of a group whose consumer was deleted stay, with
// an ErrTopology, until the group is subscribed again.
func (b *Broker) Redrive(ctx context.Context, group string, limit int) (int, error) {
	moved := 0
	err := b.eachDead(ctx, group, limit, func(m *nats.Msg, raw *jetstream.RawStreamMsg, s jetstream.Stream) error {
		if moved == 0 {
			if err := b.consumes(ctx, group); err != nil {
				return err
			}
		}
		if err := b.move(ctx, b.copy(b.retrySubject(group), "redrive", group, raw.Sequence, raw.Time,
			b.decode(m))); err != nil {
			return err
		}
		err := b.call(ctx, func(ctx context.Context) error {
			err := s.DeleteMsg(ctx, raw.Sequence)
			if errors.Is(err, jetstream.ErrMsgNotFound) { // another Redrive has moved it
				return nil
			}
			return err
		})
		if err == nil {
			moved++
		}
		return err
	})
	if err != nil {
		return moved, fmt.Errorf("jetstream: redrive %s: %w", group, err)
	}
	return moved, nil
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

// eachDead calls f with up to limit dead letters of a group, oldest first. Those that come meanwhile are not among
// them.
func (b *Broker) eachDead(ctx context.Context, group string, limit int, f func(*nats.Msg, *jetstream.RawStreamMsg,
	jetstream.Stream) error) error {
	if limit <= 0 {
		return nil
	}
	js, err := b.ready(ctx)
	if err != nil {
		return err
	}
	var s jetstream.Stream
	var last *jetstream.RawStreamMsg
	subject := b.deadSubject(group)
	err = b.call(ctx, func(ctx context.Context) (err error) {
		if s, err = js.Stream(ctx, b.deadStream()); err != nil {
			return err
		}
		last, err = s.GetLastMsgForSubject(ctx, subject)
		return none(err)
	})
	if err != nil || last == nil {
		return err
	}
	for seq := uint64(1); limit > 0 && seq <= last.Sequence; limit-- {
		var raw *jetstream.RawStreamMsg
		err := b.call(ctx, func(ctx context.Context) (err error) {
			raw, err = s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
			return none(err)
		})
		if err != nil || raw == nil || raw.Sequence > last.Sequence {
			return err
		}
		if err := f(&nats.Msg{Subject: raw.Subject, Header: raw.Header, Data: raw.Data}, raw, s); err != nil {
			return err
		}
		seq = raw.Sequence + 1
	}
	return nil
}

// none takes the absence of a message as no error.
func none(err error) error {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}
