package rabbitmq

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rpc runs calls of amqp091, which take no context, and waits for them as long as ctx lets it, at most rpcTimeout. What
// f returns after that goes to drop, which may be nil.
func rpc[T any](ctx context.Context, c *conn, f func() (T, error), drop func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done, left, late := make(chan result), make(chan struct{}), make(chan struct{})
	defer close(left)
	guard := time.AfterFunc(rpcTimeout, func() {
		if c.useless(time.Now()) {
			c.kill()
		}
		close(late)
	})
	go func() {
		v, err := f()
		c.heard.Store(time.Now().UnixNano())
		if !guard.Stop() {
			<-late
			c.silent.Add(-1)
		}
		select {
		case done <- result{v, err}:
		case <-left:
			if err == nil && drop != nil {
				drop(v)
			}
		}
	}()
	var zero T
	select {
	case r := <-done:
		return r.v, r.err
	case <-late:
		return zero, errSilent
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// ownChannel is a channel for an operation of many calls, each of which has the time limit of a single one.
type ownChannel struct {
	*amqp.Channel
	c *conn
}

// withChannel runs f with a channel of its own, which is closed afterwards. The operation as a whole is bounded by ctx
// only.
func withChannel[T any](ctx context.Context, l *link, f func(ch *ownChannel) (T, error)) (v T, err error) {
	c, err := l.get(ctx)
	if err != nil {
		return v, err
	}
	ch, err := rpc(ctx, c, c.Channel, func(ch *amqp.Channel) { _ = ch.Close() })
	if err != nil {
		return v, err
	}
	own := &ownChannel{ch, c}
	v, err = f(own)
	// The close gives back what f has not settled, also when ctx has ended. The server closes a channel that it refuses
	// something to by itself; that is in err already.
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = own.call(cctx, ch.Close)
	return v, err
}

// closeTimeout bounds the wait for the close of a channel.
const closeTimeout = 5 * time.Second

func (ch *ownChannel) call(ctx context.Context, f func() error) error {
	_, err := rpc(ctx, ch.c, func() (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

// onChannel runs f with a channel of its own, which is closed afterwards.
func onChannel[T any](ctx context.Context, l *link, f func(ch *amqp.Channel) (T, error)) (T, error) {
	c, err := l.get(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	return rpc(ctx, c, func() (v T, err error) {
		ch, err := c.Channel()
		if err != nil {
			return v, err
		}
		defer ch.Close() // the server closes it when it refuses something; that is in err already
		return f(ch)
	}, nil)
}
