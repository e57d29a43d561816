package rabbitmq

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// delivery implements messaging.Delivery.
type delivery struct {
	s       *stream
	g       *generation
	raw     amqp.Delivery
	e       messaging.Envelope
	attempt int
	// unhandled counts earlier deliveries to processes without a handler.
	unhandled int
	received  time.Time
	settled   atomic.Bool
}

func newDelivery(s *stream, g *generation, raw amqp.Delivery) *delivery {
	d := &delivery{s: s, g: g, raw: raw}
	var made int
	d.e, made = decode(&d.raw)
	d.attempt = made + 1 + s.overdue.attempts(&raw, d.e)
	d.received = time.Now()
	g.c.heard.Store(d.received.UnixNano())
	d.unhandled = number(raw.Headers[headerUnhandled])
	g.mu.Lock()
	g.open[raw.DeliveryTag] = d
	g.mu.Unlock()
	return d
}

// Envelope implements messaging.Delivery.
func (d *delivery) Envelope() messaging.Envelope { return d.e }

// Attempt implements messaging.Delivery.
func (d *delivery) Attempt() int { return d.attempt }

// Advance implements messaging.Delivery.
func (d *delivery) Advance() { d.attempt++ }

// Unhandled implements messaging.Delivery.
func (d *delivery) Unhandled() int { return d.unhandled }

// claim makes the caller the one who settles.
func (d *delivery) claim() error {
	if d.g.dead() || !d.settled.CompareAndSwap(false, true) {
		return messaging.ErrClosed
	}
	d.g.mu.Lock()
	delete(d.g.open, d.raw.DeliveryTag)
	d.g.mu.Unlock()
	d.s.overdue.settled(d.e)
	return nil
}

// Ack implements messaging.Delivery. It hands over to the goroutine that writes: an acknowledgement that gets lost
// there is as one that gets lost on the way, and the message comes again.
func (d *delivery) Ack(context.Context) error {
	if err := d.claim(); err != nil {
		return err
	}
	return d.g.put(settling{tag: d.raw.DeliveryTag})
}

// Requeue implements messaging.Delivery. Of a single active consumer the end of its channel gives it back, in its
// place: before, it would come to the same consumer again, and a quorum queue without a delivery limit puts what is
// rejected to its end.
func (d *delivery) Requeue(context.Context) error {
	if d.s.oneActive() {
		return nil
	}
	if err := d.claim(); err != nil {
		return err
	}
	return d.g.put(settling{tag: d.raw.DeliveryTag, requeue: true})
}

// Retry implements messaging.Delivery. A message whose headers leave no room to count the attempt becomes a dead
// letter.
func (d *delivery) Retry(ctx context.Context, delay time.Duration, reason error) error {
	msg := copyForQueue(&d.raw, d.e)
	attempts, unhandled := d.attempt, d.unhandled
	if errors.Is(reason, messaging.ErrNoHandler) {
		attempts, unhandled = d.attempt-1, d.unhandled+1
	}
	msg.Headers[headerAttempts] = int64(attempts)
	if unhandled > 0 {
		msg.Headers[headerUnhandled] = int64(unhandled)
	}
	group := d.s.sub.Group
	if d.g.c.headerOverflow(&msg) > 0 {
		return d.DeadLetter(ctx, errors.Join(errors.New("rabbitmq: its headers leave no room for another attempt"), reason))
	}
	if d.s.sub.Ephemeral {
		return d.retryHere(msg, delay)
	}
	if delay <= 0 {
		return d.move(ctx, d.s.queue, msg, func() error { return d.s.redeclare(ctx) })
	}
	if d.s.sub.Partitions > 0 {
		setSlot(msg.Headers, d.e.Key)
	}
	s := step(delay)
	// The queue's own limit does not hold at once: a server puts in what another channel publishes while the queue is
	// being declared, and what then has no limit would never leave, nor would what comes behind it.
	msg.Expiration = strconv.FormatInt(s.Milliseconds(), 10)
	if rest := delay - s; rest > 0 { // longer than a queue can hold a message: it goes on waiting when it comes back
		msg.Headers[headerWait] = int64(rest / time.Second)
	}
	return d.move(ctx, retryQueue(group, s), msg, func() error { return d.s.b.declareRetry(ctx, d.s.sub, s) })
}

// retryHere puts a message to the end of its own queue after the delay. It counts as not settled until then. An
// ephemeral group has no queues for retries: its name would leave them behind.
func (d *delivery) retryHere(msg amqp.Publishing, delay time.Duration) error {
	if err := d.claim(); err != nil {
		return err
	}
	go func() { // ends with the stream
		if backoff.Sleep(d.s.ctx, delay) != nil {
			return // the queue goes too
		}
		ctx, cancel := context.WithTimeout(d.s.ctx, rpcTimeout)
		defer cancel()
		err := d.replace(ctx, d.s.sub.Group, msg, func() error { return d.s.redeclare(ctx) })
		if err != nil && d.s.ctx.Err() == nil {
			d.s.b.cfg.Logger.Warn("rabbitmq: a message of an ephemeral group cannot be retried", "group", d.s.sub.Group,
				"message_id", d.e.ID, "error", err)
		}
	}()
	return nil
}

// waitOn puts a message that has not waited long enough back to the retries. No attempt was made of it.
func (d *delivery) waitOn(wait time.Duration) {
	ctx, cancel := context.WithTimeout(d.s.b.ctx, rpcTimeout)
	defer cancel()
	d.attempt--
	if err := d.Retry(ctx, wait, nil); err != nil && !errors.Is(err, messaging.ErrClosed) { // it comes again
		d.s.b.cfg.Logger.Warn("rabbitmq: a message cannot wait on", "group", d.s.sub.Group, "message_id", d.e.ID, "error",
			err)
	}
}

// DeadLetter implements messaging.Delivery.
func (d *delivery) DeadLetter(ctx context.Context, reason error) error {
	group := d.s.sub.Group
	if d.s.sub.Ephemeral {
		d.s.b.cfg.Logger.ErrorContext(ctx, "rabbitmq: a message of an ephemeral group was dropped", "group", group,
			"message_id", d.e.ID, "error", reason)
		return d.Ack(ctx)
	}
	msg := copyForQueue(&d.raw, d.e)
	msg.Headers[headerAttempts] = int64(d.attempt)
	msg.Headers[headerOrigin] = group
	if reason != nil {
		r := reason.Error()
		msg.Headers[headerReason] = r[:min(len(r), maxReason)]
	}
	if dropped := d.g.c.makeRoom(&msg); len(dropped) > 0 {
		d.s.b.cfg.Logger.ErrorContext(ctx, "rabbitmq: a dead letter loses headers that fill a frame", "group", group,
			"message_id", d.e.ID, "headers", dropped)
	}
	return d.move(ctx, deadQueue(group), msg, func() error { return d.s.redeclare(ctx) })
}

// movePause keeps a message that cannot be moved from coming back in a tight loop.
const movePause = time.Second

// move publishes to a queue, and acknowledges when that was confirmed. A queue that is missing is made. Without a
// confirm the delivery is given back: the attempt is made again.
func (d *delivery) move(ctx context.Context, queue string, msg amqp.Publishing, declare func() error) error {
	if err := d.claim(); err != nil {
		return err
	}
	return d.replace(ctx, queue, msg, declare)
}

// replace does what move does with a delivery that is claimed.
func (d *delivery) replace(ctx context.Context, queue string, msg amqp.Publishing, declare func() error) error {
	err := d.s.b.pub.one(ctx, "", queue, msg)
	if errors.Is(err, messaging.ErrUnroutable) {
		if err = declare(); err == nil {
			err = d.s.b.pub.one(ctx, "", queue, msg)
		}
	}
	if err != nil {
		_ = backoff.Sleep(ctx, movePause) // cut short or not, the delivery goes back
		return errors.Join(err, d.g.put(settling{tag: d.raw.DeliveryTag, requeue: true}))
	}
	return d.g.put(settling{tag: d.raw.DeliveryTag})
}
