package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// delays is the ladder of pauses for which queues are made; a pause is rounded up to a step. Longer ones are rounded up
// to whole days; what is above 28 days waits in several queues, one after the other.
var delays = [...]time.Duration{
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 12 * time.Hour,
}

const (
	day      = 24 * time.Hour
	maxDelay = 28 * day // x-message-ttl has 32 bits of milliseconds: longer ones wait several times
)

// step rounds a delay up.
func step(d time.Duration) time.Duration {
	for _, s := range delays {
		if d <= s {
			return s
		}
	}
	return min((d+day-1)/day*day, maxDelay) //nolint:durationcheck // whole days, rounded up
}

// stepName is a step in its largest whole unit, such as 250ms, 10s, 2m, 1h, 3d.
func stepName(d time.Duration) string {
	for _, u := range []struct {
		d    time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d%u.d == 0 {
			return fmt.Sprint(int64(d/u.d), u.name)
		}
	}
	return fmt.Sprint(d.Milliseconds(), "ms")
}

// topology names the refusal of a declaration that another attempt would not mend, and says what does.
func (b *Broker) topology(err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == amqp.PreconditionFailed:
		return fmt.Errorf("%w: delete what is there, or configure the broker for it: %s", ErrTopology, e.Reason)
	case e.Code == amqp.NotFound && b.cfg.Passive:
		return fmt.Errorf("%w: Config.Passive leaves it to an operator to make it: %s", ErrTopology, e.Reason)
	case e.Code == amqp.AccessRefused && !strings.Contains(e.Reason, "exclusive"): // an exclusive consumer may end
		return fmt.Errorf("%w: grant it, or set Config.Passive where only configure is missing: %s", ErrPermission, e.Reason)
	}
	return err
}

// permanent reports whether only an operator can mend an error.
func permanent(err error) bool { return errors.Is(err, ErrTopology) || errors.Is(err, ErrPermission) }

func deadQueue(group string) string { return group + ".dead" }

func retryQueue(group string, s time.Duration) string { return group + ".retry." + stepName(s) }

// unlimited is a delivery limit that is none: RabbitMQ 3 knows no other way to say so.
const unlimited = math.MaxInt32

// args are a queue's arguments. What leaves a quorum queue for its dead-letter queue is confirmed there first, which
// asks for overflow=reject-publish.
func (b *Broker) args(deadLetterTo string) amqp.Table {
	a := amqp.Table{}
	if !b.cfg.Classic {
		a["x-queue-type"] = "quorum"
	}
	if deadLetterTo == "" {
		if !b.cfg.Classic {
			a["x-delivery-limit"] = int64(unlimited) // looking at dead letters counts; RabbitMQ 4 would drop them at 20
		}
		return a
	}
	a["x-dead-letter-exchange"] = ""
	a["x-dead-letter-routing-key"] = deadLetterTo
	if !b.cfg.Classic {
		a["x-dead-letter-strategy"] = "at-least-once"
		a["x-overflow"] = "reject-publish"
	}
	return a
}

// declareExchange makes the exchange, or checks that it is there.
func (b *Broker) declareExchange(ch *amqp.Channel) error {
	f := ch.ExchangeDeclare
	if b.cfg.Passive {
		f = ch.ExchangeDeclarePassive
	}
	return b.topology(f(b.cfg.Exchange, amqp.ExchangeTopic, true, false, false, false, nil))
}

// declare makes a queue, or checks that it is there.
func (b *Broker) declare(ch *amqp.Channel, name string, args amqp.Table) error {
	f := ch.QueueDeclare
	if b.cfg.Passive {
		f = ch.QueueDeclarePassive
	}
	_, err := f(name, true, false, false, false, args)
	return b.topology(err)
}

// declareGroup makes what a group needs. It is repeated on every channel.
func (b *Broker) declareGroup(ch *amqp.Channel, sub messaging.Subscription, part int) error {
	group := sub.Group
	if err := b.declareExchange(ch); err != nil {
		return err
	}
	if sub.Ephemeral {
		return b.declareEphemeral(ch, sub)
	}
	if err := b.declare(ch, deadQueue(group), b.args("")); err != nil {
		return err
	}
	if sub.Partitions > 0 {
		return b.declarePartition(ch, sub, part)
	}
	if err := b.declare(ch, group, b.queueArgs(sub)); err != nil || b.cfg.Passive {
		return err
	}
	return b.bind(ch, sub)
}

// queueArgs are the arguments of a queue that a group consumes from.
func (b *Broker) queueArgs(sub messaging.Subscription) amqp.Table {
	args := b.args(deadQueue(sub.Group)) // only a delivery limit sends messages there by itself
	if sub.SingleActive || sub.Partitions > 0 {
		args["x-single-active-consumer"] = true
	}
	switch limit := b.cfg.DeliveryLimit; {
	case b.cfg.Classic || limit == 0:
	case limit < 0:
		args["x-delivery-limit"] = int64(unlimited)
	default:
		args["x-delivery-limit"] = int64(limit)
	}
	return args
}

func (b *Broker) bind(ch *amqp.Channel, sub messaging.Subscription) error {
	for _, p := range sub.Patterns {
		if err := ch.QueueBind(sub.Group, p, b.cfg.Exchange, false, nil); err != nil {
			return b.topology(err)
		}
	}
	return nil
}

// ephemeralExpires is how long the queue of an ephemeral group stays without its consumer: a lost connection is
// shorter.
const ephemeralExpires = 5 * time.Minute

// declareEphemeral makes the queue of a single stream, also with Config.Passive: no operator can make it.
func (b *Broker) declareEphemeral(ch *amqp.Channel, sub messaging.Subscription) error {
	args := amqp.Table{"x-expires": ephemeralExpires.Milliseconds()}
	if _, err := ch.QueueDeclare(sub.Group, true, false, false, false, args); err != nil {
		return b.topology(err)
	}
	return b.bind(ch, sub)
}

// declareRetry makes the queue in which retries wait: what has waited long enough goes straight to the group's queue,
// or to that of its partition.
func (b *Broker) declareRetry(ctx context.Context, sub messaging.Subscription, s time.Duration) error {
	group := sub.Group
	args := b.args(group)
	if sub.Partitions > 0 {
		args["x-dead-letter-exchange"] = partitionExchange(group)
		delete(args, "x-dead-letter-routing-key") // those of the message stand
	}
	args["x-message-ttl"] = s.Milliseconds()
	_, err := onChannel(ctx, b.con, func(ch *amqp.Channel) (struct{}, error) {
		return struct{}{}, b.declare(ch, retryQueue(group, s), args)
	})
	return err
}

// rebind binds the groups of this process again after the exchange was deleted.
func (b *Broker) rebind() {
	ctx, cancel := context.WithTimeout(b.ctx, rpcTimeout)
	defer cancel()
	for _, s := range b.subscribed() {
		if err := s.redeclare(ctx); err != nil {
			b.cfg.Logger.Warn("rabbitmq: cannot bind a group anew", "group", s.sub.Group, "error", err)
		}
	}
}
