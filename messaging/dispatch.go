package messaging

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/errclass"
	"github.com/sillar-go/sillar/messaging/internal/carrier"
)

// consumer runs one group: it receives in one goroutine and handles in Concurrency others.
type consumer struct {
	*Group
	stream Stream
	ctx    context.Context // ends when nothing new is to start
	live   context.Context // of handlers: it outlives ctx by DrainTimeout
	// lanes are channels of deliveries: one that all workers share or, when the group is ordered, one a worker, chosen by
	// the key.
	lanes   []chan Delivery
	seed    maphash.Seed
	workers sync.WaitGroup
}

// run handles the messages of a stream until ctx ends or the stream is broken for good, and drains.
func (g *Group) run(ctx context.Context, s Stream) error {
	live, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	c := &consumer{Group: g, stream: s, ctx: ctx, live: live, lanes: g.newLanes(), seed: maphash.MakeSeed()}
	for i := range g.cfg.Concurrency {
		c.workers.Go(func() { c.work(c.lanes[i%len(c.lanes)]) })
	}
	err := c.receive()
	if ctx.Err() != nil || errors.Is(err, ErrClosed) {
		err = nil
	}
	if e := s.Stop(); e != nil {
		g.router.cfg.Logger.WarnContext(live, "messaging: the stream could not be stopped", "group", g.name, "error", e)
	}
	for _, lane := range c.lanes {
		close(lane)
	}
	if !drained(&c.workers, max(g.router.cfg.DrainTimeout, 0), kill) {
		err = errors.Join(err, ErrDrain)
	}
	if e := s.Close(); e != nil {
		g.router.cfg.Logger.WarnContext(live, "messaging: the stream could not be closed", "group", g.name, "error", e)
	}
	if err != nil {
		return fmt.Errorf("messaging: group %s: %w", g.name, err)
	}
	return nil
}

func (g *Group) newLanes() []chan Delivery {
	if !g.cfg.Ordered || g.cfg.Concurrency == 1 {
		return []chan Delivery{make(chan Delivery)} // hands over to a free worker
	}
	lanes := make([]chan Delivery, g.cfg.Concurrency)
	for i := range lanes {
		lanes[i] = make(chan Delivery, g.cfg.Prefetch)
	}
	return lanes
}

// receive hands deliveries to the workers until the stream or ctx ends.
func (c *consumer) receive() error {
	for {
		d, err := c.stream.Receive(c.ctx)
		if err != nil {
			return err
		}
		d = unwrap(d)
		lane := c.lanes[0]
		if len(c.lanes) > 1 {
			lane = c.lanes[maphash.String(c.seed, orderKey(d.Envelope()))%uint64(len(c.lanes))]
		}
		select {
		case lane <- d:
		case <-c.ctx.Done():
			c.requeue(c.live, d)
		}
	}
}

// work handles what comes by a lane until it is closed. A handler may end its goroutine (runtime.Goexit): another one
// goes on with the next message.
func (c *consumer) work(lane <-chan Delivery) {
	for {
		closed := make(chan bool, 1)
		go func() {
			defer close(closed)
			c.handleAll(lane)
			closed <- true
		}()
		if <-closed {
			return
		}
	}
}

func (c *consumer) handleAll(lane <-chan Delivery) {
	for d := range lane {
		if c.ctx.Err() != nil {
			c.requeue(c.live, d)
			continue
		}
		c.handle(d)
	}
}

// handle makes attempts at a delivery until it is settled.
func (c *consumer) handle(d Delivery) {
	for {
		again, pause := c.attemptAndSettle(c.live, d)
		if !again {
			return
		}
		if backoff.Sleep(c.ctx, pause) != nil {
			c.requeue(c.live, d)
			return
		}
		d.Advance()
	}
}

// killGrace is how long handlers have to return after their context was cancelled.
const killGrace = 5 * time.Second

// drained waits for the handlers: timeout for them to finish, then, after kill, killGrace for them to give up.
func drained(wg *sync.WaitGroup, timeout time.Duration, kill func()) bool {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	kill()
	timer.Reset(killGrace)
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func orderKey(e Envelope) string {
	if e.Key != "" {
		return e.Key
	}
	return e.ID
}

// settleTimeout bounds an acknowledgement and the publishing that goes with a retry or a dead letter.
const settleTimeout = 30 * time.Second

func (g *Group) requeue(ctx context.Context, d Delivery) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	_, pattern := g.handler(d.Envelope().Type)
	g.settled(ctx, d, pattern, "requeue", d.Requeue(ctx))
}

// attemptAndSettle makes one attempt and settles the delivery, unless it is to be made again in place, after a pause.
func (g *Group) attemptAndSettle(ctx context.Context, d Delivery) (again bool, pause time.Duration) {
	r, e, killed := g.router, d.Envelope(), ctx
	ctx = r.cfg.Propagator.Extract(ctx, carrier.Carrier(e.Headers))
	ctx, span := r.tracer.Start(ctx, "process "+e.Type, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.destination.name", e.Type),
		attribute.String("messaging.consumer.group.name", g.name),
		attribute.String("messaging.message.id", e.ID),
		attribute.Int("sillar.messaging.attempt", d.Attempt())))
	defer span.End()

	h, pattern := g.handler(e.Type)
	start := time.Now()
	dup, err := false, errGoexit
	defer func() { // which comes also when the handler ends its goroutine
		r.meters.duration.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(
			attribute.String("group", g.name), attribute.String("topic", pattern)))
		if err != nil {
			errclass.Record(span, err)
			span.SetStatus(codes.Error, "the handler failed")
		}
		outcome, settle := g.verdict(d, dup, err)
		if outcome == "retry" && g.cfg.BlockingRetry && !errors.Is(err, ErrNoHandler) {
			again, pause = true, g.pause(d, err)
			settle = func(context.Context) error { return nil }
		}
		if err != nil && killed.Err() != nil { // cut short by the drain's deadline: no fault of the message
			outcome, settle, again = "requeue", d.Requeue, false
		}
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		switch outcome {
		case "retry":
			r.cfg.Logger.WarnContext(ctx, "messaging: a message was not handled and will be tried again", "group", g.name,
				"topic", e.Type, "message_id", e.ID, "attempt", d.Attempt(), "error", err)
		case "dead":
			r.cfg.Logger.ErrorContext(ctx, "messaging: a message became a dead letter", "group", g.name,
				"topic", e.Type, "message_id", e.ID, "attempt", d.Attempt(), "error", err)
		}
		g.settled(ctx, d, pattern, outcome, settle(sctx))
	}()
	dup, err = g.attempt(ctx, h, d, e)
	return again, pause
}

var errGoexit = fmt.Errorf("%w: it ended its goroutine", ErrPanic)

// verdict says what becomes of a message.
func (g *Group) verdict(d Delivery, dup bool, err error) (outcome string, settle func(context.Context) error) {
	retry, attempt := g.cfg.Retry, d.Attempt()
	if errors.Is(err, ErrNoHandler) {
		retry, attempt = g.cfg.Unhandled, d.Unhandled()+1
	}
	var permanent permanentError
	switch {
	case err == nil && dup:
		return "duplicate", d.Ack
	case err == nil:
		return "ack", d.Ack
	case errors.As(err, &permanent), retry.Attempts > 0 && attempt >= retry.Attempts:
		return "dead", func(ctx context.Context) error { return d.DeadLetter(ctx, err) }
	}
	return "retry", func(ctx context.Context) error { return d.Retry(ctx, g.pause(d, err), err) }
}

// pause returns how long a message waits for its next attempt.
func (g *Group) pause(d Delivery, err error) time.Duration {
	var after retryAfterError
	switch {
	case errors.As(err, &after):
		return after.d
	case errors.Is(err, ErrNoHandler):
		return g.cfg.Unhandled.Backoff.Delay(d.Unhandled() + 1)
	}
	return g.cfg.Retry.Backoff.Delay(d.Attempt())
}

func (g *Group) attempt(ctx context.Context, h HandlerFunc, d Delivery, e Envelope) (dup bool, err error) {
	if u, ok := d.(*unwrapped); ok && u.err != nil {
		return false, Permanent(fmt.Errorf("%w: %s: %w", ErrDecode, e.Type, u.err))
	}
	if h == nil {
		return false, fmt.Errorf("%w: group %s, topic %s", ErrNoHandler, g.name, e.Type)
	}
	if most := g.cfg.Retry.Attempts; most > 0 && d.Attempt() > most { // they ended without a result
		return false, Permanent(fmt.Errorf("%w: %d of %d attempts were made", ErrAttempts, d.Attempt()-1, most))
	}
	if g.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.cfg.Timeout)
		defer cancel()
	}
	m := Message[[]byte]{Envelope: e, Data: e.Body, Attempt: d.Attempt()}
	if g.cfg.Dedup == nil || e.ID == "" {
		return false, g.guarded(ctx, e, func() error { return h(ctx, m) })
	}
	err = g.guarded(ctx, e, func() (err error) {
		dup, err = g.cfg.Dedup.Once(ctx, g.name, identity(e), func(ctx context.Context) error {
			return g.guarded(ctx, e, func() error { return h(ctx, m) }) // a panic must not pass through a transaction
		})
		return err
	})
	return dup, err
}

// identity names an event among those of all sources: an id is unique within its source only, and many count from 1.
func identity(e Envelope) string {
	if e.Source == "" {
		return e.ID
	}
	return e.Source + " " + e.ID
}

// guarded makes an error of a panic.
func (g *Group) guarded(ctx context.Context, e Envelope, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			g.router.cfg.Logger.ErrorContext(ctx, "messaging: a handler panicked", "group", g.name, "topic", e.Type,
				"message_id", e.ID, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrPanic, p)
		}
	}()
	return f()
}

func (g *Group) settled(ctx context.Context, d Delivery, pattern, outcome string, err error) {
	e := d.Envelope()
	if err != nil {
		// The broker delivers it again: nothing is lost.
		g.router.cfg.Logger.WarnContext(ctx, "messaging: a delivery could not be settled", "group", g.name,
			"topic", e.Type, "message_id", e.ID, "outcome", outcome, "error", err)
		outcome = "unsettled"
	}
	g.router.meters.handled.Add(ctx, 1, metric.WithAttributes(attribute.String("group", g.name),
		attribute.String("topic", pattern), attribute.String("outcome", outcome)))
}
