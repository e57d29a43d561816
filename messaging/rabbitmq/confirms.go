package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// A channel remembers where the leaders of queues are. When the node of one dies, the server may refuse every message
// of the old channel to that queue, or confirm none, though a new channel works at once. A full queue refuses too, and
// rightly: so a channel is replaced, but with growing pauses.
const (
	failuresInARow  = 3 // of one topic, after which another channel is opened
	stallTick       = time.Second
	confirmWait     = 5 * time.Second  // without any confirm, after which the server counts as one that confirms nothing
	forgetAfter     = time.Minute      // a failure says nothing about the server's health any more
	closeRetired    = 10 * time.Second // for the confirms of a channel that was replaced
	maxReplacePause = time.Minute
	maxSilentPause  = 10 * time.Second // between replacements when the server does not answer, which no full queue causes
	forgetFailing   = 2 * time.Minute
	maxFailing      = 1000 // topics
)

// record is what became of the latest messages.
type record struct {
	// dirty is true while a failure is noted, which a confirm ends.
	dirty atomic.Bool

	mu      sync.Mutex
	failing map[string]int // failures in a row, by topic
	since   time.Time      // when the first of the messages that failed since the last confirm was written
	last    time.Time      // when the last of them failed
	nacks   int            // how many of them were refused
	err     error          // how the last of them failed
	logged  bool
	pause   time.Duration // after the next replacement
	notYet  time.Time     // no replacement before
}

// confirmed notes a confirm.
func (r *record) confirmed(topic string) {
	if !r.dirty.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.nacks, r.err, r.logged = time.Time{}, 0, nil, false
	delete(r.failing, topic)
	if len(r.failing) == 0 {
		r.pause = 0
		r.dirty.Store(false)
	}
}

// failed notes a failure at now of a message that was written at begun. It returns whether the server has begun to fail
// all messages, and whether another channel is due.
func (r *record) failed(topic string, begun, now time.Time, nack bool, err error) (all, replace bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty.Store(true)
	if r.since.IsZero() {
		r.since = begun
	}
	if now.Sub(r.last) > forgetFailing { // what failed then and was not published since is over
		clear(r.failing)
		r.pause = 0
	}
	r.last, r.err = now, err
	if nack {
		r.nacks++
	}
	if !nack && now.Sub(r.since) < confirmWait { // the caller's patience was short
		return false, false
	}
	if r.failing == nil || len(r.failing) >= maxFailing {
		r.failing = map[string]int{}
	}
	r.failing[topic]++
	if all = !r.logged && r.failsAll(); all {
		r.logged = true
	}
	limit := maxReplacePause
	if !nack {
		limit = maxSilentPause
	}
	return all, r.failing[topic] >= failuresInARow && r.mayReplace(now, limit)
}

// mayReplace reports whether another channel is due at now, and counts it. The pause after it grows up to limit. It is
// called with the mutex locked.
func (r *record) mayReplace(now time.Time, limit time.Duration) bool {
	if now.Before(r.notYet) {
		return false
	}
	r.pause = min(max(2*r.pause, time.Second), limit)
	r.notYet = now.Add(r.pause)
	// the new channel counts anew, but only a confirm of the topic ends the growth of pauses
	for topic := range r.failing {
		r.failing[topic] = 0
	}
	return true
}

// stalled notes at now that a channel has had no confirm since begun, while its callers are patient. It returns what
// failed does.
func (r *record) stalled(begun, now time.Time) (all, replace bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty.Store(true)
	if r.since.IsZero() {
		r.since = begun
	}
	r.last, r.err = now, messaging.ErrUnknownOutcome
	all, r.logged = !r.logged, true
	return all, r.mayReplace(now, maxSilentPause)
}

// failsAll is called with the mutex locked.
func (r *record) failsAll() bool {
	return r.nacks >= failuresInARow || !r.since.IsZero() && r.last.Sub(r.since) >= confirmWait
}

// health returns an error when nothing was confirmed of late that was published.
func (r *record) health(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.failsAll() || now.Sub(r.last) > forgetAfter {
		return nil
	}
	return fmt.Errorf("%w: nothing was confirmed for %s: %w", messaging.ErrBlocked,
		now.Sub(r.since).Round(time.Millisecond), r.err)
}

// nacked notes that the server refused a message.
func (p *publisher) nacked(g *pubGen, o outgoing) {
	now := time.Now()
	p.failed(g, o, now, now, messaging.ErrNacked)
}

// unconfirmed notes that a message was not confirmed in time.
func (p *publisher) unconfirmed(g *pubGen, o outgoing, begun time.Time) {
	p.failed(g, o, begun, time.Now(), messaging.ErrUnknownOutcome)
}

func (p *publisher) failed(g *pubGen, o outgoing, begun, now time.Time, err error) {
	select {
	case <-g.retired: // another channel is there already
		return
	default:
	}
	if reason, _ := g.c.blockedBy(); reason != "" { // which Health tells
		return
	}
	all, replace := p.record.failed(o.key, begun, now, errors.Is(err, messaging.ErrNacked), err)
	if all {
		p.b.cfg.Logger.Error("rabbitmq: the server confirms nothing", "topic", o.key, "error", err)
	}
	if replace {
		p.b.cfg.Logger.Warn("rabbitmq: the server fails every message of a topic; another channel is opened", "topic", o.key,
			"error", err)
		g.retire()
	}
}

// stallWatch notices that a channel has messages under way and gets no confirm. The publisher's goroutine owns it.
type stallWatch struct {
	settled int64 // at the latest look
	since   time.Time
}

// look retires the channel when there was no confirm for confirmWait.
func (w *stallWatch) look(p *publisher, g *pubGen, now time.Time) {
	settled := g.settled.Load()
	if reason, _ := g.c.blockedBy(); reason != "" || settled != w.settled || settled == g.written.Load() ||
		w.since.IsZero() {
		w.settled, w.since = settled, now
		return
	}
	if now.Sub(w.since) < confirmWait {
		return
	}
	all, replace := p.record.stalled(w.since, now)
	if all {
		p.b.cfg.Logger.Error("rabbitmq: the server confirms nothing", "error", messaging.ErrUnknownOutcome)
	}
	if replace {
		p.b.cfg.Logger.Warn("rabbitmq: the server confirms nothing; another channel is opened", "pending", g.pending())
		g.retire()
	}
}

// closeRetired closes a channel that was replaced when all is confirmed, or after a while. What is not confirmed then
// is sent again (Config.ReportUnknown: reported).
func (p *publisher) closeRetired(g *pubGen) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for end := time.Now().Add(closeRetired); g.pending() > 0 && time.Now().Before(end); {
		select {
		case <-g.gone:
			return
		case <-p.b.ctx.Done(): // it ends with its connection
			return
		case <-t.C:
		}
	}
	ctx, cancel := context.WithTimeout(p.b.ctx, closeTimeout)
	defer cancel()
	_, _ = rpc(ctx, g.c, func() (struct{}, error) { return struct{}{}, g.ch.Close() }, nil)
}

func returnKey(exchange, key, id string) string { return exchange + "\x00" + key + "\x00" + id }

func (g *pubGen) note(r amqp.Return) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.returned[returnKey(r.Exchange, r.RoutingKey, r.MessageId)]++
}

// wasReturned takes the note of a return.
func (g *pubGen) wasReturned(o outgoing) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.returned) == 0 {
		return false
	}
	return g.takeReturn(returnKey(o.exchange, o.key, o.msg.MessageId))
}

// takeReturn is called with the mutex locked.
func (g *pubGen) takeReturn(k string) bool {
	n := g.returned[k]
	if n == 1 {
		delete(g.returned, k)
	} else if n > 1 {
		g.returned[k] = n - 1
	}
	return n > 0
}

// lateConfirm is a confirm that comes after its caller has left.
type lateConfirm struct {
	confirm   *amqp.DeferredConfirmation
	returnKey string
	topic     string
}

// forget waits for the confirm of a message whose publisher has given up, so that its return does not stay
// noted. One goroutine waits for all of a channel.
func (g *pubGen) forget(p *publisher, confirm *amqp.DeferredConfirmation, o outgoing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.late = append(g.late, lateConfirm{confirm, returnKey(o.exchange, o.key, o.msg.MessageId), o.key})
	if !g.reaping {
		g.reaping = true
		go g.reap(&p.record)
	}
}

func (g *pubGen) reap(r *record) {
	for {
		g.mu.Lock()
		if len(g.late) == 0 {
			g.late, g.reaping = nil, false
			g.mu.Unlock()
			return
		}
		l := g.late[0]
		g.late = g.late[1:]
		g.mu.Unlock()
		select {
		case <-l.confirm.Done():
			g.settled.Add(1)
		case <-g.gone:
			return
		}
		g.mu.Lock()
		g.takeReturn(l.returnKey)
		g.mu.Unlock()
		if l.confirm.Acked() {
			r.confirmed(l.topic)
		}
	}
}
