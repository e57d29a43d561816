package rabbitmq

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

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
