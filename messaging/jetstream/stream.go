package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

const (
	// pullExpires is how long the server keeps a request for messages.
	pullExpires = 30 * time.Second
	// pullHeartbeat is how often the server shows that it has a request. One that is silent for three times as long is
	// lost.
	pullHeartbeat = time.Second
	// tick is how often a stream looks after its requests.
	tick = 500 * time.Millisecond
)

// stream is a subscription: requests for messages, of which there are as many as may be unsettled, and the answers.
type stream struct {
	b        *Broker
	sub      messaging.Subscription
	ackWait  time.Duration // the consumer's
	consumer string
	inbox    string // what requests ask to be answered to begins with it
	ctx      context.Context
	cancel   context.CancelFunc // ends Receive
	done     chan struct{}      // the goroutine has ended
	over     chan struct{}      // Close was called
	close    func()             // closes over, once
	arrived  chan struct{}      // holds a token when ready has messages

	mu       sync.Mutex
	nsub     *nats.Subscription
	ready    []*delivery            // come and not received
	open     map[*delivery]struct{} // come and not settled
	requests []*request             // oldest first: the server answers them in this order
	number   int                    // of the last request
	heard    time.Time              // when something came
	broken   bool                   // the server does not know the consumer
	stopped  bool
	closed   bool
}

// request asks for a number of messages.
type request struct {
	reply   string
	left    int
	expires time.Time
}

// Subscribe implements messaging.Subscriber. It waits, as long as ctx lets it, for the servers to be reachable.
func (b *Broker) Subscribe(ctx context.Context, sub messaging.Subscription) (messaging.Stream, error) {
	if err := driver.Check(sub, b.Features()); err != nil {
		return nil, err
	}
	sub.Prefetch = max(sub.Prefetch, 1)
	if _, err := b.filters(sub.Group, sub.Patterns, nil); err != nil {
		return nil, err
	}
	if _, err := b.ready(ctx); err != nil { // an error of the connection, as it is
		return nil, err
	}
	ackWait, err := b.declareGroup(ctx, sub)
	if err != nil {
		return nil, fmt.Errorf("jetstream: subscribe %s: %w", sub.Group, err)
	}
	s := &stream{b: b, sub: sub, ackWait: ackWait, consumer: token(sub.Group), inbox: nats.NewInbox() + ".",
		done: make(chan struct{}), over: make(chan struct{}),
		arrived: make(chan struct{}, 1), open: map[*delivery]struct{}{}, heard: time.Now()}
	s.close = sync.OnceFunc(func() { close(s.over) })
	s.ctx, s.cancel = context.WithCancel(b.ctx)
	nsub, err := b.link.nc.Subscribe(s.inbox+"*", s.take)
	if err == nil {
		err = nsub.SetPendingLimits(-1, -1) // bounded by the requests
	}
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("%w: subscribe %s: %w", messaging.ErrClosed, sub.Group, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed() {
		s.cancel()
		return nil, messaging.ErrClosed
	}
	b.streams[s] = struct{}{}
	s.mu.Lock()
	s.nsub = nsub
	s.pull()
	s.mu.Unlock()
	b.wg.Go(s.run)
	return s, nil
}

// pull asks for as many messages as may be unsettled beside those that are or have been asked for. Without a connection
// it does nothing: the request would come beside that of resume. The mutex is held.
func (s *stream) pull() {
	asked := 0
	for _, r := range s.requests {
		asked += r.left
	}
	free := s.sub.Prefetch - len(s.open) - asked
	if free <= 0 || s.stopped || !s.b.link.connected() || asked > 0 && free < (s.sub.Prefetch+1)/2 {
		return
	}
	s.number++
	r := &request{reply: s.inbox + strconv.Itoa(s.number), left: free, expires: time.Now().Add(pullExpires)}
	body, _ := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{free, pullExpires, pullHeartbeat}) // numbers only: cannot fail
	subject := "$JS.API.CONSUMER.MSG.NEXT." + s.b.cfg.Stream + "." + s.consumer
	if s.b.link.nc.PublishRequest(subject, r.reply, body) == nil {
		if len(s.requests) == 0 { // the server had nothing to say
			s.heard = time.Now()
		}
		s.requests = append(s.requests, r)
	}
}

// take handles what comes to the inbox: messages under their own subjects, and what the server says of requests.
func (s *stream) take(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
	if strings.HasPrefix(m.Subject, s.inbox) {
		s.status(m)
		return
	}
	if len(s.requests) > 0 {
		if s.requests[0].left--; s.requests[0].left == 0 {
			s.requests = s.requests[1:]
		}
	}
	d, err := newDelivery(s, m)
	if err != nil {
		s.b.cfg.Logger.Error("jetstream: a delivery that JetStream did not make", "group", s.sub.Group, "error", err)
		return
	}
	switch wait, limit := d.waits(), s.b.cfg.DeliveryLimit; {
	case s.stopped:
		d.nak(0)
		return
	case wait > 0:
		d.nak(wait)
	case limit > 0 && d.deliveries > limit:
		s.open[d] = struct{}{}
		s.b.wg.Go(d.exhausted)
	default:
		s.open[d] = struct{}{}
		s.ready = append(s.ready, d)
		select {
		case s.arrived <- struct{}{}:
		default:
		}
	}
	s.pull()
}

// status handles what the server says of a request. The mutex is held.
func (s *stream) status(m *nats.Msg) {
	code := m.Header.Get("Status")
	if code == "100" { // it is alive
		return
	}
	s.requests = slices.DeleteFunc(s.requests, func(r *request) bool { return r.reply == m.Subject })
	switch {
	case code == "408": // it expired
		s.pull()
	case code == "409" && strings.Contains(strings.ToLower(m.Header.Get("Description")), "deleted"), code == "503",
		code == "404":
		s.broken = true // the next tick makes the consumer anew, and asks again
	}
}

// run looks after the requests, checks the consumer and, beside these, which may wait for the server, extends the time
// of deliveries.
func (s *stream) run() {
	defer close(s.done)
	var extending sync.WaitGroup
	extending.Go(func() { s.every(s.ackWait/3, s.extend) })
	checked := time.Now()
	s.every(tick, func() {
		if s.ctx.Err() == nil && (s.tend() || time.Since(checked) >= refresh) {
			checked = time.Now()
			s.check()
		}
	})
	extending.Wait()
}

// every calls f once in d until Close: deliveries that are held after Stop need their time extended too.
func (s *stream) every(d time.Duration, f func()) {
	t := time.NewTicker(max(d, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f()
		case <-s.over:
			return
		case <-s.b.ctx.Done():
			return
		}
	}
}

// extend extends the deliveries that are still being handled. Without a connection it would take the room of
// acknowledgements.
func (s *stream) extend() {
	if !s.b.link.connected() {
		return
	}
	s.mu.Lock()
	held := make([]*delivery, 0, len(s.open))
	for d := range s.open {
		held = append(held, d)
	}
	s.mu.Unlock()
	for _, d := range held {
		_ = s.b.link.nc.Publish(d.reply, []byte("+WPI")) // else it comes again
	}
}

// tend forgets requests that got lost, and asks again. It reports whether the consumer is to be checked.
func (s *stream) tend() (broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if len(s.requests) > 0 && now.Sub(s.heard) > 3*pullHeartbeat && s.b.link.connected() {
		s.requests, s.broken, s.heard = nil, true, now
	}
	s.requests = slices.DeleteFunc(s.requests, func(r *request) bool { return now.After(r.expires.Add(pullHeartbeat)) })
	broken, s.broken = s.broken, false
	if !broken {
		s.pull()
	}
	return broken
}

// disconnected forgets the requests, as the server does.
func (s *stream) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// resume asks for messages again after a reconnection.
func (s *stream) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pull()
}

// check makes the consumer where it is missing, and adds patterns that it lost.
func (s *stream) check() {
	ctx, cancel := context.WithTimeout(s.ctx, 3*callTimeout)
	defer cancel()
	sub := s.sub
	sub.Start = messaging.Start{} // a group that is made anew does not begin again
	if _, err := s.b.declareGroup(ctx, sub); err != nil && s.ctx.Err() == nil {
		s.b.cfg.Logger.Warn("jetstream: cannot check a group's consumer", "group", s.sub.Group, "error", err)
		s.mu.Lock()
		s.broken = true
		s.mu.Unlock()
	}
}

// Receive implements messaging.Stream.
func (s *stream) Receive(ctx context.Context) (messaging.Delivery, error) {
	for {
		if s.ctx.Err() != nil {
			return nil, messaging.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if len(s.ready) > 0 {
			d := s.ready[0]
			s.ready[0] = nil
			s.ready = s.ready[1:]
			s.mu.Unlock()
			return d, nil
		}
		s.mu.Unlock()
		select {
		case <-s.arrived:
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
	}
}

// Stop implements messaging.Stream.
func (s *stream) Stop() error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return nil
	}
	s.stopped = true
	s.cancel()
	nsub := s.nsub
	s.mu.Unlock()
	drained := make(chan struct{})
	connected := s.b.link.connected()
	if connected {
		nsub.SetClosedHandler(func(string) { close(drained) })
		connected = nsub.Drain() == nil
	}
	// Only now, when the server hands out no more to this stream, what was not received goes back: else it might come
	// here.
	s.mu.Lock()
	for _, d := range s.ready {
		if d.settled.CompareAndSwap(false, true) {
			delete(s.open, d)
			d.nak(0)
		}
	}
	s.ready = nil
	s.mu.Unlock()
	if connected {
		t := time.NewTimer(closeTimeout)
		defer t.Stop()
		select {
		case <-drained: // what came meanwhile was given back
			return nil
		case <-t.C:
		}
	}
	_ = nsub.Unsubscribe() // the connection is lost: what it had comes again
	return nil
}

// Close implements messaging.Stream.
func (s *stream) Close() error {
	err := s.Stop()
	s.b.mu.Lock()
	delete(s.b.streams, s)
	s.b.mu.Unlock()
	s.mu.Lock()
	s.closed = true
	back := make([]*delivery, 0, len(s.open))
	for d := range s.open {
		back = append(back, d)
	}
	clear(s.open)
	slices.SortFunc(back, func(a, b *delivery) int { return int(int64(a.sequence) - int64(b.sequence)) })
	for _, d := range back {
		if d.settled.CompareAndSwap(false, true) {
			d.nak(0)
		}
	}
	s.mu.Unlock()
	s.close()
	if s.b.link.connected() {
		_ = s.b.link.nc.FlushTimeout(closeTimeout) // acknowledgements; those that get lost make duplicates
	}
	<-s.done
	return err
}
