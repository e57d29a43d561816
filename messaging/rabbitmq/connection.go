package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/attribute"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

const (
	dialTimeout = 15 * time.Second // TCP, TLS and AMQP handshake together
	// dialTimeoutOfSeveral is for one of several nodes: another one may answer.
	dialTimeoutOfSeveral = 5 * time.Second
	// nextNode is the pause before another node is tried.
	nextNode               = 50 * time.Millisecond
	rpcTimeout             = 30 * time.Second
	connectionCloseTimeout = 2 * time.Second // for an orderly end of a connection
)

// link keeps one connection up from its first use until the broker is closed.
type link struct {
	b    *Broker
	name string
	once sync.Once

	mu      sync.Mutex
	cur     *conn
	err     error         // why there is none
	changed chan struct{} // closed and replaced at every change
}

func newLink(b *Broker, name string) *link {
	return &link{b: b, name: name, changed: make(chan struct{})}
}

func (l *link) set(c *conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cur, l.err = c, err
	close(l.changed)
	l.changed = make(chan struct{})
}

// note sets why a connection that is up cannot be used, or nil.
func (l *link) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	close(l.changed)
	l.changed = make(chan struct{})
}

// state returns the live connection or nil, the reason why there is none, and a channel that ends with the next change.
func (l *link) state() (*conn, error, <-chan struct{}) { //nolint:staticcheck // the error belongs to the connection
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur, l.err, l.changed
}

// get waits for a live connection, unless the server refuses it permanently.
func (l *link) get(ctx context.Context) (*conn, error) { return l.wait(ctx, permanent) }

// await waits for a live connection even after a permanent refusal: an operator may have corrected the cause.
func (l *link) await(ctx context.Context) (*conn, error) {
	return l.wait(ctx, func(error) bool { return false })
}

func (l *link) wait(ctx context.Context, hopeless func(why error) bool) (*conn, error) {
	if l.b.closed() {
		return nil, messaging.ErrClosed
	}
	l.once.Do(func() { l.b.wg.Go(l.run) })
	for {
		c, why, changed := l.state()
		if c != nil {
			return c, nil
		}
		if hopeless(why) {
			return nil, fmt.Errorf("%w: not connected: %w", messaging.ErrBlocked, why)
		}
		select {
		case <-changed:
		case <-l.b.ctx.Done():
			return nil, messaging.ErrClosed
		case <-ctx.Done():
			return nil, notConnected(why, ctx.Err())
		}
	}
}

func notConnected(why, err error) error {
	if why != nil {
		return fmt.Errorf("%w: not connected (%w): %w", messaging.ErrBlocked, why, err)
	}
	return fmt.Errorf("%w: not connected: %w", messaging.ErrBlocked, err)
}

func (l *link) run() {
	nodes := l.b.nodes
	for attempt := 1; ; attempt++ {
		node := nodes.pick(time.Now())
		c, err := l.dial(node)
		if err != nil {
			if l.b.closed() {
				return
			}
			l.set(nil, err)
			pause := l.b.cfg.Reconnect.Delay(attempt)
			if nodes.failed(node, time.Now()) {
				pause = min(pause, nextNode)
			}
			l.b.cfg.Logger.Warn("rabbitmq: cannot connect", "connection", l.name, "host", node.host, "error", err, "next_try_in",
				pause)
			if backoff.Sleep(l.b.ctx, pause) != nil {
				return
			}
			continue
		}
		attempt = 0
		nodes.works(node)
		l.set(c, nil)
		select {
		case <-c.gone:
			l.set(nil, c.why())
			nodes.failed(node, time.Now())
			l.b.meters.Lost(l.b.ctx, attribute.String("connection", l.name))
			l.b.cfg.Logger.Warn("rabbitmq: a connection was lost", "connection", l.name, "host", node.host, "error", c.why())
			c.kill()
			if backoff.Sleep(l.b.ctx, l.b.cfg.Reconnect.Delay(1)) != nil {
				return
			}
		case <-l.b.ctx.Done():
			l.set(nil, messaging.ErrClosed)
			_ = c.CloseDeadline(time.Now().Add(connectionCloseTimeout)) // the connection is discarded either way
			c.kill()
			return
		}
	}
}

func (l *link) dial(node *node) (*conn, error) {
	timeout := dialTimeout
	if l.b.nodes.several() {
		timeout = dialTimeoutOfSeveral
	}
	begin := time.Now()
	c := &conn{gone: make(chan struct{}), changed: make(chan struct{})}
	cfg := amqp.Config{Heartbeat: l.b.cfg.Heartbeat, Locale: "en_US", TLSClientConfig: l.b.cfg.TLS,
		Properties: amqp.NewConnectionProperties()}
	cfg.Properties.SetClientConnectionName(l.b.cfg.Name + " (" + l.name + ")")
	var unwatch func() bool
	cfg.Dial = func(network, addr string) (net.Conn, error) {
		raw, err := (&net.Dialer{Timeout: timeout}).DialContext(l.b.ctx, network, addr)
		if err != nil {
			return nil, err
		}
		unwatch = context.AfterFunc(l.b.ctx, func() { _ = raw.Close() })
		c.raw = &corkConn{Conn: raw}
		return c.raw, raw.SetDeadline(time.Now().Add(timeout)) // amqp091 lifts it after the handshake
	}
	var err error
	c.Connection, err = amqp.DialConfig(node.url, cfg)
	if unwatch != nil && !unwatch() && err == nil {
		err = messaging.ErrClosed
	}
	if err != nil {
		c.kill()
		return nil, refused(err, time.Since(begin))
	}
	go c.watch(c.NotifyClose(make(chan *amqp.Error, 1)), c.NotifyBlocked(make(chan amqp.Blocking)))
	return c, nil
}

// A server that refuses a password closes the connection without a word, three seconds later, to all that do not
// announce that they would understand one, as amqp091 does not. A close at any other time says nothing about the
// password.
const silentCloseFrom, silentCloseUntil = 2500 * time.Millisecond, 4500 * time.Millisecond

// refused names the refusal of a connection, after a while, that another attempt would not mend.
func refused(err error, after time.Duration) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e == amqp.ErrCredentials && (after < silentCloseFrom || after > silentCloseUntil):
		return fmt.Errorf("rabbitmq: the connection was closed in the handshake after %v", after.Round(time.Millisecond))
	case e == amqp.ErrCredentials, e.Server && e.Code == amqp.AccessRefused:
		return fmt.Errorf("%w: check the user and the password of the URL: %s", ErrPermission, e.Reason)
	case e.Server && e.Code == amqp.NotAllowed && !strings.Contains(e.Reason, "limit"):
		return fmt.Errorf("%w: check the vhost of the URL and the user's access to it: %s", ErrPermission, e.Reason)
	}
	return err
}

// conn is one connection of a link, never used again after it is gone.
type conn struct {
	*amqp.Connection
	raw  *corkConn
	gone chan struct{}

	maxBody atomic.Int64 // bytes; 0 until the server refuses one
	silent  atomic.Int32 // calls without an answer for more than rpcTimeout
	heard   atomic.Int64 // Unix time in nanoseconds of the latest answer or delivery

	mu      sync.Mutex
	lost    error
	blocked string // the reason, while the server takes no messages
	changed chan struct{}
}

// watch reads the notifications of the connection, to its end.
func (c *conn) watch(closed chan *amqp.Error, blocked chan amqp.Blocking) {
	for closed != nil || blocked != nil {
		select {
		case err, ok := <-closed:
			if ok {
				c.mu.Lock()
				c.lost = err
				c.mu.Unlock()
				continue
			}
			closed = nil
			close(c.gone)
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			reason := ""
			if b.Active {
				reason = "blocked by the server: " + b.Reason
			}
			c.mu.Lock()
			c.blocked = reason
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
		}
	}
}

func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil {
		return errors.New("rabbitmq: the connection was closed")
	}
	return c.lost
}

// blockedBy returns why the server takes no messages, or "", and a channel that ends with the next change.
func (c *conn) blockedBy() (string, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocked, c.changed
}

// kill ends the connection without a word, which wakes everything that waits in it.
func (c *conn) kill() {
	if c.raw != nil {
		_ = c.raw.Close()
	}
}

// errSilent is the error of a call that the server does not answer.
var errSilent = errors.New("rabbitmq: the server does not answer")

// maxSilent is how many calls may wait for their answers beyond rpcTimeout before their connection is given up,
// provided that it carried no answer and no delivery for as long. A call about a queue whose leader does not answer
// hangs, and so does each that binds while a node of a cluster is frozen: the deliveries of other groups are not to end
// with it. A connection that is dead as a whole is noticed by its heartbeats.
const maxSilent = 16

// useless reports whether to give up the connection after one more call without an answer.
func (c *conn) useless(now time.Time) bool {
	return c.silent.Add(1) > maxSilent && now.Sub(time.Unix(0, c.heard.Load())) > rpcTimeout
}

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
