package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// publisher owns the connection for publishing. One goroutine writes, because a write may block for as long as the
// server likes, while callers have contexts.
type publisher struct {
	b      *Broker
	link   *link
	jobs   chan *job
	record record
}

// outgoing is a message on its way.
type outgoing struct {
	exchange, key string
	msg           amqp.Publishing
}

// job is what a caller hands to the writer. sent belongs to the writer until written is closed.
type job struct {
	ctx     context.Context
	out     []outgoing
	sent    []sending
	begun   time.Time // when it was written
	written chan struct{}
}

type sending struct {
	confirm *amqp.DeferredConfirmation
	err     error
	g       *pubGen
}

// pubGen is a channel in confirm mode, used until it dies.
type pubGen struct {
	c    *conn
	ch   *amqp.Channel
	gone chan struct{}
	err  *amqp.Error // why it is gone
	// retired is closed when no more is to be written to the channel, which is still there for what is under way.
	retired chan struct{}
	retire  func()
	written atomic.Int64
	settled atomic.Int64 // confirmed or refused

	mu       sync.Mutex
	returned map[string]int
	late     []lateConfirm // their publishers have given up
	reaping  bool          // a goroutine waits for late
}

// pending returns how many messages are written and not confirmed.
func (g *pubGen) pending() int64 { return g.written.Load() - g.settled.Load() }

// run opens one generation after the other.
func (p *publisher) run() {
	ctx := p.b.ctx
	missing := false // the exchange was deleted: groups must be bound anew
	for attempt := 1; ; attempt++ {
		c, err := p.link.await(ctx)
		if err != nil {
			return
		}
		g, err := p.open(c)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, errSilent) { // nothing else is on this connection
				c.kill()
			}
			p.b.cfg.Logger.Error("rabbitmq: cannot open a channel for publishing", "error", err)
			p.link.note(err)
			if backoff.Sleep(ctx, p.b.cfg.Reconnect.Delay(attempt)) != nil {
				return
			}
			continue
		}
		attempt = 0
		p.link.note(nil)
		if missing {
			p.b.rebind()
		}
		p.serve(g)
		missing = false
		select {
		case <-g.gone:
			missing = g.err != nil && g.err.Code == amqp.NotFound
		case <-g.retired:
			p.b.wg.Go(func() { p.closeRetired(g) })
		default:
		}
	}
}

func (p *publisher) open(c *conn) (*pubGen, error) {
	return rpc(p.b.ctx, c, func() (*pubGen, error) {
		ch, err := c.Channel()
		if err != nil {
			return nil, err
		}
		if err := p.b.declareExchange(ch); err != nil {
			return nil, err
		}
		if err := ch.Confirm(false); err != nil {
			return nil, err
		}
		g := &pubGen{c: c, ch: ch, gone: make(chan struct{}), retired: make(chan struct{}), returned: map[string]int{}}
		g.retire = sync.OnceFunc(func() { close(g.retired) })
		// A return must be noted before the confirm that follows it is seen. The reader of the connection tells the
		// listeners in turn and waits for each: what it can hand to the second, the first has taken, and noted.
		first, second := ch.NotifyReturn(make(chan amqp.Return)), ch.NotifyReturn(make(chan amqp.Return))
		go func() {
			for r := range first {
				g.note(r)
				<-second
			}
			for range second { // drained to its end
			}
		}()
		closed := ch.NotifyClose(make(chan *amqp.Error, 1))
		go func() {
			g.err = <-closed
			close(g.gone)
		}()
		return g, nil
	}, nil) // the connection ends with this context
}

// serve writes jobs until the generation is gone. While the server blocks the connection nothing is taken.
func (p *publisher) serve(g *pubGen) {
	var stall stallWatch
	tick := time.NewTicker(stallTick)
	defer tick.Stop()
	for {
		jobs := p.jobs
		reason, changed := g.c.blockedBy()
		if reason != "" {
			jobs = nil
		}
		select {
		case j := <-jobs:
			g.writeAll(j, jobs)
		case <-changed:
		case now := <-tick.C:
			stall.look(p, g, now)
		case <-g.gone:
			return
		case <-g.retired:
			return
		case <-p.b.ctx.Done():
			return
		}
	}
}

// gather bounds how many jobs are written together.
const gather = 100

// writeAll writes a job, and others that are ready, with few system calls.
func (g *pubGen) writeAll(j *job, jobs <-chan *job) {
	g.c.raw.cork()
	defer g.c.raw.uncork()
	g.write(j)
	for waited, n := false, 1; n < gather; {
		select {
		case j = <-jobs:
			g.write(j)
			n, waited = n+1, false
		default:
			if waited {
				return
			}
			runtime.Gosched() // one confirm often wakes many callers: let them come
			waited = true
		}
	}
}

func (g *pubGen) write(j *job) {
	defer close(j.written)
	j.begun = time.Now()
	for i := range j.out {
		s := &j.sent[i]
		if s.g = g; j.ctx.Err() != nil {
			s.err = j.ctx.Err()
			continue
		}
		o := &j.out[i]
		if s.err = g.c.tooLarge(o.msg.Body); s.err != nil {
			continue
		}
		if s.confirm, s.err = g.ch.PublishWithDeferredConfirm(o.exchange, o.key, true, false, o.msg); s.err == nil {
			g.written.Add(1)
		}
	}
}

// one publishes one message.
func (p *publisher) one(ctx context.Context, exchange, key string, msg amqp.Publishing) error {
	return p.send(ctx, []outgoing{{exchange, key, msg}}, nil)[0]
}

// chunk bounds a job: a large batch does not keep others waiting long, and its first messages are under way while the
// next are made.
const chunk = 100

// part is a job that was handed to the writer, with the places of its messages in the batch.
type part struct {
	*job
	at []int
}

// send publishes and waits for the confirms; it returns an error for each message. Those that are not made yet are made
// by prepare, which may be nil.
func (p *publisher) send(ctx context.Context, out []outgoing, prepare func(i int) error) []error {
	errs := make([]error, len(out))
	defer p.b.meters.Published(ctx, errs)
	if p.b.cfg.PublishTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.b.cfg.PublishTimeout)
		defer cancel()
	}
	left := make([]int, len(out))
	for i := range left {
		left[i] = i
	}
	for try := 1; len(left) > 0; try++ {
		// a message that breaks each channel must not do so in a tight loop
		if try > 2 && backoff.Sleep(ctx, p.b.cfg.Reconnect.Delay(try-2)) != nil {
			return errs
		}
		var parts []part
		var refusal error
		for at := range slices.Chunk(left, chunk) {
			if try == 1 && prepare != nil {
				at = slices.DeleteFunc(at, func(i int) bool {
					errs[i] = prepare(i)
					return errs[i] != nil
				})
			}
			if len(at) == 0 {
				continue
			}
			j := &job{ctx: ctx, out: pick(out, at), sent: make([]sending, len(at)), written: make(chan struct{})}
			if refusal == nil {
				refusal = p.hand(j)
			}
			if refusal == nil {
				parts = append(parts, part{j, at})
				continue
			}
			for _, i := range at {
				errs[i] = driver.Again(errs[i], refusal)
			}
		}
		var again []int
		for _, j := range parts {
			written := p.awaitWritten(j.job)
			for n, i := range j.at {
				err := p.unknown(ctx.Err())
				if written {
					err = p.outcome(j.job, n)
				}
				errs[i] = driver.Again(errs[i], err)
				if errors.Is(err, messaging.ErrUnknownOutcome) && ctx.Err() == nil && !p.b.closed() && !p.b.cfg.ReportUnknown {
					again = append(again, i)
				}
			}
		}
		left = again
	}
	return errs
}

// pick takes messages out of all, without copying where they lie side by side.
func pick(out []outgoing, at []int) []outgoing {
	first, n := at[0], len(at)
	if at[n-1]-first == n-1 {
		return out[first : first+n]
	}
	picked := make([]outgoing, n)
	for i, a := range at {
		picked[i] = out[a]
	}
	return picked
}

// hand gives a job to the writer.
func (p *publisher) hand(j *job) error {
	for {
		if p.b.closed() {
			return messaging.ErrClosed
		}
		_, why, changed := p.link.state()
		if permanent(why) { // which to wait for would be in vain
			return fmt.Errorf("%w: %w", messaging.ErrBlocked, why)
		}
		select {
		case p.jobs <- j:
			return nil
		case <-changed:
		case <-p.b.ctx.Done():
			return messaging.ErrClosed
		case <-j.ctx.Done():
			return p.refusal(j.ctx.Err())
		}
	}
}
