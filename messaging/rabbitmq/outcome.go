package rabbitmq

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// refusal says why nothing was taken before the context ended.
func (p *publisher) refusal(err error) error {
	c, why, _ := p.link.state()
	if c == nil {
		return notConnected(why, err)
	}
	reason, _ := c.blockedBy()
	switch {
	case reason != "":
		return fmt.Errorf("%w: %s: %w", messaging.ErrBlocked, reason, err)
	case why != nil:
		return fmt.Errorf("%w: %w: %w", messaging.ErrBlocked, why, err)
	}
	return fmt.Errorf("rabbitmq: publish: %w", err)
}

// awaitWritten reports whether a job was written before its context ended. If not, the confirms of what is written of
// it all the same are waited for by forget.
func (p *publisher) awaitWritten(j *job) bool {
	select {
	case <-j.written:
		return true
	case <-j.ctx.Done():
	}
	go func() { // the writer ends a job soon, or with its connection
		<-j.written
		for i := range j.sent {
			if s := &j.sent[i]; s.err == nil {
				s.g.forget(p, s.confirm, j.out[i])
			}
		}
	}()
	return false
}

// outcome waits for what becomes of message i of a job that was written.
func (p *publisher) outcome(j *job, i int) error {
	s, o := &j.sent[i], j.out[i]
	switch {
	case s.err != nil && errors.Is(s.err, j.ctx.Err()):
		return p.refusal(s.err) // not sent
	case errors.Is(s.err, amqp.ErrFieldType):
		return fmt.Errorf("%w: a header's type", messaging.ErrInvalid)
	case errors.Is(s.err, messaging.ErrInvalid):
		return s.err
	case s.err != nil:
		return p.unknown(s.err)
	}
	select {
	case <-s.confirm.Done():
		s.g.settled.Add(1)
	case <-s.g.gone:
	case <-j.ctx.Done():
		s.g.forget(p, s.confirm, o)
		p.unconfirmed(s.g, o, j.begun)
		return p.unknown(j.ctx.Err())
	}
	switch {
	case s.confirm.Acked() && s.g.wasReturned(o):
		p.record.confirmed(o.key)
		return fmt.Errorf("%w: %s", messaging.ErrUnroutable, o.key)
	case s.confirm.Acked():
		p.record.confirmed(o.key)
		return nil
	case s.g.ch.IsClosed(): // amqp091 reports the end of a channel as nacks
		<-s.g.gone
		if err := s.g.blame(o); err != nil {
			return err
		}
		return p.unknown(s.g.why())
	}
	p.nacked(s.g, o)
	return fmt.Errorf("%w: %s", messaging.ErrNacked, o.key)
}

// unknown says that a message was sent, or perhaps sent, and not confirmed.
func (p *publisher) unknown(err error) error {
	if p.b.closed() {
		return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, messaging.ErrClosed)
	}
	if c, _, _ := p.link.state(); c != nil {
		if reason, _ := c.blockedBy(); reason != "" {
			return fmt.Errorf("%w: %w: %s: %w", messaging.ErrBlocked, messaging.ErrUnknownOutcome, reason, err)
		}
	}
	return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, err)
}
