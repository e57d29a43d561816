package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/id"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// refresh is how often a consumer declares its topology again: the server does not report deleted bindings.
const refresh = 30 * time.Second

// stream is a subscription. One goroutine opens a channel, waits for its end, and opens the next.
type stream struct {
	b     *Broker
	sub   messaging.Subscription
	queue string // that it consumes from
	part  int    // its partition's number, where sub has some
	// stray: a pattern of the group matches the second routing keys of messages whatever their topics.
	stray  bool
	ctx    context.Context // ends with Stop
	cancel context.CancelFunc
	done   chan struct{} // the goroutine has ended

	refreshing atomic.Bool
	overdue    overdue

	mu      sync.Mutex
	cur     *generation
	opened  bool
	err     error         // what ended the stream for good
	lost    error         // why there is no channel at present; nil before the first attempt
	changed chan struct{} // closed and replaced at every change
}

const consumerTag = "sillar"

// Subscribe implements messaging.Subscriber. It waits, as long as ctx lets it, for the server to be reachable.
func (b *Broker) Subscribe(ctx context.Context, sub messaging.Subscription) (messaging.Stream, error) {
	if err := driver.Check(sub, b.Features()); err != nil {
		return nil, err
	}
	sub.Prefetch = min(max(sub.Prefetch, 1), 65535)
	if sub.Partitions > 0 {
		return b.subscribePartitions(ctx, sub)
	}
	if sub.Ephemeral {
		sub.Group += "." + id.New()
	}
	s, err := b.newStream(sub, 0)
	if err != nil {
		return nil, err
	}
	if err := s.awaitOpen(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// newStream begins to consume from the queue of a group, or of one of its partitions.
func (b *Broker) newStream(sub messaging.Subscription, part int) (*stream, error) {
	s := &stream{b: b, sub: sub, queue: sub.Group, part: part, done: make(chan struct{}), changed: make(chan struct{})}
	if sub.Partitions > 0 {
		s.queue = partitionQueue(sub.Group, part)
	}
	s.stray = s.takes(slotKey(0))
	s.ctx, s.cancel = context.WithCancel(b.ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed() {
		s.cancel()
		return nil, messaging.ErrClosed
	}
	b.streams[s] = struct{}{}
	b.wg.Go(s.run)
	return s, nil
}

// awaitOpen waits until the stream consumes for the first time.
func (s *stream) awaitOpen(ctx context.Context) error {
	for {
		s.mu.Lock()
		opened, err, changed := s.opened, s.err, s.changed
		s.mu.Unlock()
		switch {
		case opened:
			return nil
		case err != nil:
			return err
		}
		_, why, connection := s.b.con.state()
		if permanent(why) {
			return fmt.Errorf("rabbitmq: subscribe %s: %w", s.sub.Group, why)
		}
		select {
		case <-changed:
		case <-connection:
		case <-s.ctx.Done():
			return messaging.ErrClosed
		case <-ctx.Done():
			s.mu.Lock()
			why = errors.Join(why, s.lost)
			s.mu.Unlock()
			return notConnected(why, ctx.Err())
		}
	}
}

// oneActive reports whether the server has one consumer of the queue receive at a time.
func (s *stream) oneActive() bool { return s.sub.SingleActive || s.sub.Partitions > 0 }

// set sets the generation, or why there is none.
func (s *stream) set(g *generation, lost error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur, s.lost = g, lost
	s.opened = s.opened || g != nil
	close(s.changed)
	s.changed = make(chan struct{})
}

// health returns an error when the stream does not consume: why, where that is known, or as soon as ctx ends.
func (s *stream) health(ctx context.Context) error {
	for {
		s.mu.Lock()
		g, lost, err, changed := s.cur, s.lost, s.err, s.changed
		s.mu.Unlock()
		_, why, connection := s.b.con.state()
		switch {
		case g != nil && !g.dead(), s.ctx.Err() != nil:
			return nil //nolint:nilerr // it consumes, or was stopped
		case err != nil, permanent(why), permanent(lost):
			return fmt.Errorf("%w: group %s does not consume: %w", messaging.ErrBlocked, s.sub.Group, cmp.Or(err, why, lost))
		}
		select {
		case <-changed:
		case <-connection:
		case <-s.ctx.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%w: group %s does not consume: %w", messaging.ErrBlocked, s.sub.Group,
				errors.Join(why, lost, ctx.Err()))
		}
	}
}

// ends reports whether a refusal ends the stream. A permission that is missing after the stream has consumed does not:
// it may be the server that cannot ask who has it.
func (s *stream) ends(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.opened || errors.Is(err, ErrTopology)
}

func (s *stream) run() {
	defer close(s.done)
	for attempt := 1; ; attempt++ {
		c, err := s.b.con.await(s.ctx)
		if err != nil {
			return
		}
		g, declared, err := s.open(c)
		switch {
		case err == nil:
			attempt = 0
			s.serve(g, declared)
		case s.ctx.Err() == nil:
			s.failed(err)
		}
		if s.ctx.Err() != nil || s.failure() != nil || backoff.Sleep(s.ctx, s.b.cfg.Reconnect.Delay(attempt+1)) != nil {
			return
		}
	}
}

// serve has g received from until its end. At the end of the stream it stays, for what is to be settled.
func (s *stream) serve(g *generation, declared bool) {
	s.set(g, nil)
	s.watch(g, declared)
	if s.ctx.Err() != nil {
		return
	}
	s.set(nil, g.err)
	s.overdue.note(g)
	s.b.cfg.Logger.Warn("rabbitmq: a consumer's channel was lost; another one will be opened", "group", s.sub.Group,
		"error", g.err)
}

// failed notes that no channel could be opened.
func (s *stream) failed(err error) {
	if permanent(err) && s.ends(err) {
		s.b.cfg.Logger.Error("rabbitmq: a consumer cannot go on", "group", s.sub.Group, "error", err)
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	} else {
		s.b.cfg.Logger.Warn("rabbitmq: cannot open a consumer", "group", s.sub.Group, "error", err)
	}
	s.set(nil, err)
}

// failure returns the error that ended the stream permanently.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// open makes a channel that consumes. The first one declares the topology before. A later one does so only where the
// queue is missing, because a binding waits for every node of a cluster, also for one that is frozen: the topology is
// declared anew beside the consumer (see watch).
func (s *stream) open(c *conn) (g *generation, declared bool, err error) {
	if s.hasConsumed() {
		if g, err = s.consume(c, false); !noQueue(err) {
			return g, false, err
		}
	}
	g, err = s.consume(c, true)
	return g, true, err
}

func (s *stream) consume(c *conn, declare bool) (*generation, error) {
	return rpc(s.ctx, c, func() (*generation, error) {
		ch, err := c.Channel()
		if err != nil {
			return nil, err
		}
		g := &generation{c: c, ch: ch, gone: make(chan struct{}), ops: make(chan settling, s.sub.Prefetch+8),
			open: map[uint64]*delivery{}}
		if declare {
			err = s.b.declareGroup(ch, s.sub, s.part)
		}
		if err == nil {
			err = ch.Qos(s.sub.Prefetch, 0, false)
		}
		closed, cancelled := ch.NotifyClose(make(chan *amqp.Error, 1)), ch.NotifyCancel(make(chan string, 1))
		if err == nil {
			g.deliveries, err = ch.Consume(s.queue, consumerTag, false, false, false, false, nil)
		}
		if err != nil {
			_ = ch.Close() // err says more
			return nil, s.b.topology(err)
		}
		go g.await(closed, cancelled)
		go g.settle()
		return g, nil
	}, func(g *generation) { _ = g.ch.Close() }) // without a reader the consumer would hold messages
}

// hasConsumed reports whether the stream has had a channel.
func (s *stream) hasConsumed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// watch waits for the end of a generation or of the stream. Beside, it declares the topology anew: at once when the
// channel was opened without, and from time to time.
func (s *stream) watch(g *generation, declared bool) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	if !declared {
		s.refresh(ctx, g.c)
	}
	t := time.NewTicker(refresh)
	defer t.Stop()
	for {
		select {
		case <-g.gone:
			return
		case <-s.ctx.Done():
			return
		case <-t.C:
			s.refresh(ctx, g.c)
		}
	}
}

// refresh declares the topology again, in a goroutine of its own. An answer may take minutes, where the leader of a
// queue or a node of a cluster does not answer: one call waits for it, and no other is made meanwhile.
func (s *stream) refresh(ctx context.Context, c *conn) {
	if !s.refreshing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		_, err := rpc(ctx, c, func() (struct{}, error) {
			defer s.refreshing.Store(false)
			return struct{}{}, s.declareOn(c)
		}, nil)
		if err != nil && ctx.Err() == nil {
			s.b.cfg.Logger.Warn("rabbitmq: cannot declare a group's topology anew", "group", s.sub.Group, "error", err)
		}
	}()
}

// declareOn declares the topology on a channel of its own.
func (s *stream) declareOn(c *conn) error {
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	defer ch.Close() // the server closes it when it refuses something; that is in err already
	return s.b.declareGroup(ch, s.sub, s.part)
}

// redeclare declares the topology and waits for it.
func (s *stream) redeclare(ctx context.Context) error {
	_, err := onChannel(ctx, s.b.con, func(ch *amqp.Channel) (struct{}, error) {
		return struct{}{}, s.b.declareGroup(ch, s.sub, s.part)
	})
	return err
}
