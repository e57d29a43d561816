package jetstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// window bounds how many messages of one call are under way: the server keeps 10,000 of a stream waiting, and refuses
// more.
const window = 1000

// outgoing are the messages of one call. Each is made by prepare when it is its turn, while those before it are under
// way.
type outgoing struct {
	msgs    []*nats.Msg
	errs    []error
	prepare func(i int) (*nats.Msg, error) // nil: they are made
	made    int
	room    int // what the server's limit must leave beside each
}

// make makes the messages up to i that are not made yet.
func (o *outgoing) make(i int) {
	for ; o.prepare != nil && o.made <= i; o.made++ {
		o.msgs[o.made], o.errs[o.made] = o.prepare(o.made)
	}
}

// send publishes messages, in order, and waits for the confirms. What is not confirmed is sent again under its message
// id until ctx ends.
func (b *Broker) send(ctx context.Context, o *outgoing) {
	if b.cfg.PublishTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.cfg.PublishTimeout)
		defer cancel()
	}
	left := make([]int, len(o.msgs))
	for i := range left {
		left[i] = i
	}
	for try := 1; len(left) > 0; try++ {
		if try > 1 && backoff.Sleep(ctx, b.cfg.Reconnect.Delay(try-1)) != nil {
			return // what became of the last try stands
		}
		left = b.try(ctx, o, left)
	}
}

// try publishes the messages left, and returns those that are to be sent again.
func (b *Broker) try(ctx context.Context, o *outgoing, left []int) (again []int) {
	js, err := b.ready(ctx)
	if err != nil {
		o.make(len(o.msgs) - 1)
		for _, i := range left {
			switch {
			// whatever the connection
			case errors.Is(o.errs[i], messaging.ErrInvalid) && !errors.Is(o.errs[i], messaging.ErrBlocked):
			case errors.Is(o.errs[i], messaging.ErrUnknownOutcome) && !errors.Is(err, messaging.ErrClosed):
			default:
				o.errs[i] = driver.Again(o.errs[i], err)
			}
		}
		return nil
	}
	futures, met := make([]jetstream.PubAckFuture, len(left)), make([]error, len(left))
	wait := func(n int) {
		i := left[n]
		if futures[n] != nil {
			met[n] = b.outcome(ctx, futures[n])
			if before := o.errs[i]; before != nil && met[n] != nil && ctx.Err() != nil { // the context ended the last try only
				met[n] = fmt.Errorf("%w; before: %w", met[n], before)
			}
			o.errs[i] = driver.Again(o.errs[i], met[n])
		}
		if met[n] != nil && ctx.Err() == nil && !b.closed() && b.again(met[n]) {
			again = append(again, i)
		}
	}
	for n, i := range left {
		if n >= window {
			wait(n - window)
		}
		o.make(i)
		switch {
		case o.msgs[i] == nil: // it cannot be made
		case ctx.Err() == nil:
			if err := b.tooLarge(o.msgs[i], o.room); err != nil {
				o.errs[i] = driver.Again(o.errs[i], err)
				continue
			}
			if futures[n], err = js.PublishMsgAsync(o.msgs[i]); err != nil {
				met[n] = b.refusal(o.msgs[i], err)
				o.errs[i] = driver.Again(o.errs[i], met[n])
			}
		case o.errs[i] == nil: // else what became of the last try stands
			o.errs[i] = fmt.Errorf("jetstream: publish: %w", ctx.Err())
		}
	}
	for n := max(0, len(left)-window); n < len(left); n++ {
		wait(n)
	}
	return again
}

// again reports whether a message that met err is to be sent again.
func (b *Broker) again(err error) bool {
	if errors.Is(err, messaging.ErrUnknownOutcome) {
		return !b.cfg.ReportUnknown && !errors.Is(err, ErrPermission)
	}
	return errors.Is(err, messaging.ErrBlocked)
}

// outcome waits for what becomes of a message.
func (b *Broker) outcome(ctx context.Context, f jetstream.PubAckFuture) error {
	select {
	case <-f.Ok(): // also for one that was stored already
		return nil
	case err := <-f.Err():
		return b.refusal(f.Msg(), err)
	case <-b.ctx.Done():
		return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, messaging.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, errors.Join(b.denial(f.Msg()), ctx.Err()))
	}
}

// headroom is what a copy for a retry or the dead letters may need more than the event: a message that has no room for
// it is not published.
const headroom = 4 << 10

// tooLarge refuses a message above the server's limit, before the connection does.
func (b *Broker) tooLarge(m *nats.Msg, room int) error {
	if most := b.link.nc.MaxPayload(); most > 0 && int64(m.Size()+room) > most {
		return fmt.Errorf("%w: %d bytes with headers: the server takes %d (its max_payload), of which %d are kept for "+
			"retries", messaging.ErrInvalid, m.Size(), most, room)
	}
	return nil
}

// denial returns an ErrPermission when the server has reported a missing permission of late, in place of an answer.
func (b *Broker) denial(m *nats.Msg) error {
	if err := b.link.permission(m.Subject); err != nil {
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return nil
}

// Codes of the server's errors about storing a message.
const (
	codeTooLarge    = 10054
	codeStoreFailed = 10077 // such as for lack of room, which a limit of the stream says
)

// refusal says what an error of publishing means.
func (b *Broker) refusal(m *nats.Msg, err error) error {
	var e *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg):
		return fmt.Errorf("%w: %w", messaging.ErrInvalid, err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse): // no stream, or no leader
		b.setDeclared(false)
		return fmt.Errorf("%w: no stream answers: %w", messaging.ErrBlocked, err)
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting):
		return fmt.Errorf("%w: %w", messaging.ErrBlocked, err)
	case errors.As(err, &e):
		switch {
		case e.ErrorCode == codeTooLarge:
			return fmt.Errorf("%w: %w", messaging.ErrInvalid, err)
		case e.ErrorCode == codeStoreFailed, e.Code == 503, e.Code == 429:
			return fmt.Errorf("%w: %w", messaging.ErrBlocked, err)
		}
		return fmt.Errorf("%w: %w", messaging.ErrNacked, err)
	case b.closed():
		return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, messaging.ErrClosed)
	}
	return fmt.Errorf("%w: %w", messaging.ErrUnknownOutcome, errors.Join(b.denial(m), err))
}

// move publishes one message to a subject of this package.
func (b *Broker) move(ctx context.Context, m *nats.Msg) error {
	o := &outgoing{msgs: []*nats.Msg{m}, errs: make([]error, 1)}
	b.send(ctx, o)
	return o.errs[0]
}
