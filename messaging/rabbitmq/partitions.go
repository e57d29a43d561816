package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// slots is how many a publisher divides keys among; a partition has every n-th of them. The number is part of what
// publishers and consumers agree on.
const slots = 64

// slotPrefix begins the second routing key of a message with a key, by which a group with partitions divides them. It
// has words enough that a pattern without # does not match it, and its own ones.
const slotPrefix = "x-sillar-slot........"

// slotKeys are the second routing keys, as the header BCC carries them.
var slotKeys = func() (all [slots][]any) {
	for i := range all {
		all[i] = []any{slotKey(i)}
	}
	return all
}()

func slotKey(slot int) string { return slotPrefix + strconv.Itoa(slot) }

// setSlot gives a message the second routing key of its key. The server takes the header away.
func setSlot(h amqp.Table, key string) {
	if key == "" {
		return
	}
	hash := uint32(2166136261) // FNV-1a
	for i := range len(key) {
		hash = (hash ^ uint32(key[i])) * 16777619
	}
	h["BCC"] = slotKeys[hash%slots]
}

// partitionExchange names the exchange that divides the messages of a group by their second routing keys.
func partitionExchange(group string) string { return group + ".partitions" }

// restExchange names the exchange for those that have none: they go to the first partition.
func restExchange(group string) string { return group + ".partitions.rest" }

// partitionQueue names the queue of a partition.
func partitionQueue(group string, n int) string {
	if n == members {
		return group + ".partition.members"
	}
	return fmt.Sprintf("%s.partition.%03d", group, n)
}

// subscribePartitions makes the topology of a group with partitions, and consumes from each.
func (b *Broker) subscribePartitions(ctx context.Context, sub messaging.Subscription) (messaging.Stream, error) {
	for attempt := 1; ; attempt++ {
		err := b.makePartitions(ctx, sub)
		if err == nil {
			break
		}
		if permanent(err) || ctx.Err() != nil || backoff.Sleep(ctx, b.cfg.Reconnect.Delay(attempt)) != nil {
			return nil, fmt.Errorf("rabbitmq: subscribe %s: %w", sub.Group, err)
		}
	}
	p := &partitioned{b: b, sub: sub, ready: make(chan messaging.Delivery), failed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(b.ctx)
	var once sync.Once
	p.fail = func(err error) { once.Do(func() { p.err = err; close(p.failed) }) }
	var err error
	if p.member, err = b.newStream(sub, members); err != nil {
		p.cancel()
		return nil, err
	}
	for n := range sub.Partitions {
		s, err := b.newStream(sub, n)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.parts = append(p.parts, &partition{p: p, n: n, s: s, release: make(chan struct{}, 1), idle: make(chan struct{}, 1)})
	}
	for _, s := range p.streams() {
		if err := s.awaitOpen(ctx); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	for _, pt := range p.parts {
		p.wg.Go(pt.run)
	}
	p.wg.Go(p.rebalance)
	return p, nil
}

// makePartitions makes the exchanges and the queues of a group with partitions, and returns an ErrTopology where it has
// another number of them. The queues come before the exchange, so that all of them exist where that does.
func (b *Broker) makePartitions(ctx context.Context, sub messaging.Subscription) error {
	exists := func(declare func(ch *amqp.Channel) error) (bool, error) { // a refusal ends the channel
		_, err := onChannel(ctx, b.con, func(ch *amqp.Channel) (struct{}, error) { return struct{}{}, declare(ch) })
		if noQueue(err) {
			return false, nil
		}
		return err == nil, b.topology(err)
	}
	queue := func(n int) (bool, error) {
		return exists(func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(partitionQueue(sub.Group, n), true, false, false, false, nil)
			return err
		})
	}
	made, err := b.isPartitioned(ctx, sub.Group)
	if err != nil {
		return b.topology(err)
	}
	more, err := queue(sub.Partitions)
	if err != nil {
		return err
	}
	last, err := queue(sub.Partitions - 1)
	if err != nil {
		return err
	}
	switch {
	case more, made && !last:
		return fmt.Errorf("%w: group %s does not have %d partitions: use the number that it was made with, or delete it",
			ErrTopology, sub.Group, sub.Partitions)
	case made || b.cfg.Passive:
		return nil // declared anew, or found missing, by each stream
	}
	_, err = onChannel(ctx, b.con, func(ch *amqp.Channel) (struct{}, error) {
		if err := b.declare(ch, deadQueue(sub.Group), b.args("")); err != nil {
			return struct{}{}, err
		}
		for n := range sub.Partitions {
			if err := b.declare(ch, partitionQueue(sub.Group, n), b.queueArgs(sub)); err != nil {
				return struct{}{}, err
			}
		}
		for n := range sub.Partitions { // without the patterns, which the streams bind
			unbound := messaging.Subscription{Group: sub.Group, Partitions: sub.Partitions}
			if err := b.declarePartition(ch, unbound, n); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return err
}

// declarePartition makes what a partition needs beside the group's dead letters. The first one binds the group's
// patterns too.
func (b *Broker) declarePartition(ch *amqp.Channel, sub messaging.Subscription, n int) error {
	queue, exchange, rest := partitionQueue(sub.Group, n), partitionExchange(sub.Group), restExchange(sub.Group)
	if n == members {
		return b.declare(ch, queue, b.args(""))
	}
	if err := b.declare(ch, queue, b.queueArgs(sub)); err != nil {
		return err
	}
	f := ch.ExchangeDeclare
	if b.cfg.Passive {
		f = ch.ExchangeDeclarePassive
	}
	if err := f(rest, amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
		return b.topology(err)
	}
	args := amqp.Table{"alternate-exchange": rest}
	if err := f(exchange, amqp.ExchangeDirect, true, false, false, false, args); err != nil || b.cfg.Passive {
		return b.topology(err)
	}
	for slot := n; slot < slots; slot += sub.Partitions {
		if err := ch.QueueBind(queue, slotKey(slot), exchange, true, nil); err != nil { // what comes next waits for all
			return b.topology(err)
		}
	}
	if err := ch.QueueBind(partitionQueue(sub.Group, 0), "", rest, false, nil); err != nil || n != 0 {
		return b.topology(err)
	}
	for _, pattern := range sub.Patterns {
		if err := ch.ExchangeBind(exchange, pattern, b.cfg.Exchange, false, nil); err != nil {
			return b.topology(err)
		}
	}
	return nil
}

// isPartitioned reports whether a group has partitions.
func (b *Broker) isPartitioned(ctx context.Context, group string) (bool, error) {
	_, err := onChannel(ctx, b.con, func(ch *amqp.Channel) (struct{}, error) {
		return struct{}{}, ch.ExchangeDeclarePassive(partitionExchange(group), amqp.ExchangeDirect, true, false, false, false,
			nil)
	})
	if noQueue(err) {
		return false, nil
	}
	return err == nil, err
}
