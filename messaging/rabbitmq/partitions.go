package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

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

// members stands for a queue without messages from which every process consumes: the server counts the consumers of
// such a queue, and of a quorum queue with a single active one only that.
const members = -1

// rebalance is about how often a process compares the number of the partitions that it holds with its share.
const rebalance = time.Second

// partitioned is the stream of a group with partitions. Each partition has a queue with a single active consumer, and
// every process a consumer on each: the server has the next one take over from a process that ends. It activates in the
// order of arrival, so a process that holds more than its share lets go of some: it is the last in line for them then.
type partitioned struct {
	b      *Broker
	sub    messaging.Subscription
	parts  []*partition
	member *stream // of the queue that counts processes
	ready  chan messaging.Delivery
	ctx    context.Context // ends with Stop
	cancel context.CancelFunc
	wg     sync.WaitGroup

	failed chan struct{} // closed when the stream is broken for good
	fail   func(error)
	err    error // why, once failed is closed
}

// partition is this process's side of a partition.
type partition struct {
	p *partitioned
	n int
	// release asks for another process to take over.
	release chan struct{}

	mu     sync.Mutex
	s      *stream     // replaced after a release
	active *generation // the one that has received something
	since  time.Time   // when it has
	out    int         // deliveries that are handed out and not settled
	idle   chan struct{}
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

// stream returns the stream of the present.
func (pt *partition) stream() *stream {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return pt.s
}

// run hands out what the partition receives. Between two streams another process may take over.
func (pt *partition) run() {
	for {
		s := pt.stream()
		err := pt.pump(s)
		switch {
		case pt.p.ctx.Err() != nil:
			return
		case err != nil:
			pt.p.fail(err)
			return
		}
		if !pt.settled() {
			return
		}
		if err := s.Close(); err != nil {
			pt.p.b.cfg.Logger.Warn("rabbitmq: the consumer of a partition was not closed", "group", pt.p.sub.Group,
				"partition", pt.n, "error", err)
		}
		next, err := pt.p.b.newStream(pt.p.sub, pt.n)
		if err != nil {
			return // the broker was closed
		}
		pt.mu.Lock()
		pt.s = next
		pt.mu.Unlock()
	}
}

// pump hands out deliveries until the partition is released, and the stream that they come from stopped.
func (pt *partition) pump(s *stream) error {
	ctx, cancel := context.WithCancel(pt.p.ctx)
	defer cancel()
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		select {
		case <-pt.release:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-stop }()
	for {
		d, err := s.Receive(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return s.Stop()
			}
			return err
		}
		select {
		case pt.p.ready <- pt.handOut(d):
		case <-ctx.Done(): // d goes back with the stream
			pt.back()
			return s.Stop()
		}
	}
}

// handOut counts a delivery.
func (pt *partition) handOut(d messaging.Delivery) messaging.Delivery {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.out++
	if own, ok := d.(*delivery); ok && pt.active != own.g {
		pt.active, pt.since = own.g, time.Now()
	}
	return &partDelivery{Delivery: d, part: pt}
}

// back counts a delivery that is settled.
func (pt *partition) back() {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.out--; pt.out == 0 {
		select {
		case pt.idle <- struct{}{}:
		default:
		}
	}
}

// settled waits until all that was handed out is settled. It returns false when the stream is stopped before.
func (pt *partition) settled() bool {
	for {
		pt.mu.Lock()
		out := pt.out
		pt.mu.Unlock()
		if out == 0 {
			return true
		}
		select {
		case <-pt.idle:
		case <-pt.p.ctx.Done():
			return false
		}
	}
}

// held reports whether the server has made this process the active one, and since when. It does not say so: what
// comes does.
func (pt *partition) held() (since time.Time, ok bool) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	pt.s.mu.Lock()
	defer pt.s.mu.Unlock()
	return pt.since, pt.active != nil && pt.active == pt.s.cur && pt.s.ctx.Err() == nil
}

// partDelivery counts when it is settled.
type partDelivery struct {
	messaging.Delivery
	part *partition
	done atomic.Bool
}

func (d *partDelivery) settle(f func() error) error {
	err := f()
	if d.done.CompareAndSwap(false, true) {
		d.part.back()
	}
	return err
}

// Ack implements messaging.Delivery.
func (d *partDelivery) Ack(ctx context.Context) error {
	return d.settle(func() error { return d.Delivery.Ack(ctx) })
}

// Retry implements messaging.Delivery.
func (d *partDelivery) Retry(ctx context.Context, delay time.Duration, reason error) error {
	return d.settle(func() error { return d.Delivery.Retry(ctx, delay, reason) })
}

// DeadLetter implements messaging.Delivery.
func (d *partDelivery) DeadLetter(ctx context.Context, reason error) error {
	return d.settle(func() error { return d.Delivery.DeadLetter(ctx, reason) })
}

// Requeue implements messaging.Delivery. The delivery goes back in its place when the channel ends, so the partition is
// released.
func (d *partDelivery) Requeue(ctx context.Context) error {
	return d.settle(func() error {
		select {
		case d.part.release <- struct{}{}:
		default: // it is on its way
		}
		return d.Delivery.Requeue(ctx)
	})
}

// rebalance lets go of what is more than this process's share, time and again.
func (p *partitioned) rebalance() {
	for {
		pause := rebalance/2 + rand.N(rebalance) // processes that began together do not go on so
		if backoff.Sleep(p.ctx, pause) != nil {
			return
		}
		var held []*partition
		for _, pt := range p.parts {
			if _, ok := pt.held(); ok {
				held = append(held, pt)
			}
		}
		if len(held) < 2 {
			continue
		}
		q, err := onChannel(p.ctx, p.b.con, func(ch *amqp.Channel) (amqp.Queue, error) {
			return ch.QueueDeclarePassive(p.member.queue, true, false, false, false, nil)
		})
		if err != nil {
			continue // the streams notice what is wrong
		}
		p.shed(held, q.Consumers)
	}
}

// shed releases the partitions beyond the share of one process among several. Those that were taken over last go first:
// the server has passed them by other processes already.
func (p *partitioned) shed(held []*partition, processes int) {
	share := (len(p.parts) + max(processes, 1) - 1) / max(processes, 1)
	for len(held) > share {
		latest, last := 0, time.Time{}
		for i, pt := range held {
			if since, _ := pt.held(); !since.Before(last) {
				latest, last = i, since
			}
		}
		select {
		case held[latest].release <- struct{}{}:
		default:
		}
		held = append(held[:latest], held[latest+1:]...)
	}
}

// Receive implements messaging.Stream.
func (p *partitioned) Receive(ctx context.Context) (messaging.Delivery, error) {
	if p.ctx.Err() != nil {
		return nil, messaging.ErrClosed
	}
	select {
	case d := <-p.ready:
		return d, nil
	case <-p.failed:
		return nil, p.err
	case <-p.ctx.Done():
		return nil, messaging.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Stop implements messaging.Stream.
func (p *partitioned) Stop() error {
	p.cancel()
	p.wg.Wait()
	return p.each((*stream).Stop)
}

// Close implements messaging.Stream.
func (p *partitioned) Close() error {
	p.cancel()
	p.wg.Wait()
	return p.each((*stream).Close)
}

// streams returns the streams of the present.
func (p *partitioned) streams() []*stream {
	all := []*stream{p.member}
	for _, pt := range p.parts {
		all = append(all, pt.stream())
	}
	return all
}

// each runs f for all streams at once.
func (p *partitioned) each(f func(*stream) error) error {
	all := p.streams()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { errs[i] = f(s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
