package kafka

import (
	"container/heap"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// delivery implements messaging.Delivery.
type delivery struct {
	s      *stream
	p      *partition
	offset int64
	e      messaging.Envelope

	attempt   int
	unhandled int
	due       time.Time
	settled   bool // the stream's mutex guards it
}

// Envelope implements messaging.Delivery.
func (d *delivery) Envelope() messaging.Envelope { return d.e }

// Attempt implements messaging.Delivery.
func (d *delivery) Attempt() int { return d.attempt }

// Advance implements messaging.Delivery.
func (d *delivery) Advance() { d.attempt++ }

// Unhandled implements messaging.Delivery.
func (d *delivery) Unhandled() int { return d.unhandled }

// settle ends the delivery: done, or to be delivered again.
func (d *delivery) settle(done bool) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if err := d.claim(); err != nil {
		return err
	}
	return d.release(done)
}

// claim makes the caller the one that settles. Until release the delivery is held, so that its partition waits. The
// mutex is held.
func (d *delivery) claim() error {
	if d.s.closed || d.p.gone || d.settled {
		return messaging.ErrClosed
	}
	d.settled = true
	return nil
}

// release ends what claim began: done, or to be delivered again. The mutex is held.
func (d *delivery) release(done bool) error {
	s, p := d.s, d.p
	if p.gone || s.closed {
		return messaging.ErrClosed // another member delivers it again
	}
	p.held--
	s.held--
	if done {
		p.settle(d.offset)
		p.dirty = true
	} else if !s.stopped && !p.leaving {
		again := *d
		again.settled = false
		i, _ := slices.BinarySearchFunc(s.ready, d.offset, func(r *delivery, offset int64) int {
			if r.p != p || r.offset > offset {
				return 1
			}
			return -1
		})
		s.ready = slices.Insert(s.ready, i, &again)
	}
	signal(s.arrived)
	signal(s.free)
	if s.stopped && s.held == 0 {
		s.leaveSoon()
	}
	return nil
}

// leaveSoon leaves the group: the last delivery of a stopped stream is settled.
func (s *stream) leaveSoon() {
	go s.leave() // Close waits for it
}

// Ack implements messaging.Delivery. It is committed with the next Config.CommitInterval: a process that is killed
// before has the message again.
func (d *delivery) Ack(context.Context) error { return d.settle(true) }

// Requeue implements messaging.Delivery.
func (d *delivery) Requeue(context.Context) error { return d.settle(false) }

// Retry implements messaging.Delivery. Pauses longer than 28 days end after 28 days.
func (d *delivery) Retry(ctx context.Context, delay time.Duration, reason error) error {
	attempts, unhandled := d.attempt, d.unhandled
	if errors.Is(reason, messaging.ErrNoHandler) {
		attempts, unhandled = d.attempt-1, d.unhandled+1
	}
	more := []kgo.RecordHeader{header(headerAttempts, strconv.Itoa(attempts))}
	if unhandled > 0 {
		more = append(more, header(headerUnhandled, strconv.Itoa(unhandled)))
	}
	if delay > 0 { // rounded up
		due := time.Now().Add(min(delay, maxDelay) + time.Millisecond - 1)
		more = append(more, header(headerDue, strconv.FormatInt(due.UnixMilli(), 10)))
	}
	r := encode(d.s.retry, d.e, more...)
	if size(r) > maxMessage { // of another program
		return d.DeadLetter(ctx, errors.Join(errNoRoom, reason))
	}
	return d.move(ctx, r)
}

// errNoRoom is the reason of a dead letter that is too large for another attempt.
var errNoRoom = errors.New("kafka: there is no room for the headers of another attempt")

// DeadLetter implements messaging.Delivery.
func (d *delivery) DeadLetter(ctx context.Context, reason error) error {
	more := []kgo.RecordHeader{header(headerAttempts, strconv.Itoa(d.attempt)), header(headerOrigin, d.s.sub.Group)}
	if reason != nil {
		r := reason.Error()
		more = append(more, header(headerReason, r[:min(len(r), maxReason)]))
	}
	r := encode(d.s.b.deadTopic(d.s.sub.Group), d.e, more...)
	if size(r) > maxMessage { // of another program: what identifies it stays
		r.Headers = slices.DeleteFunc(r.Headers, func(h kgo.RecordHeader) bool {
			return !reserved(h.Key) || h.Key == headerReason
		})
		d.s.b.cfg.Logger.ErrorContext(ctx, "kafka: a dead letter loses headers for which there is no room", "group",
			d.s.sub.Group, "message_id", d.e.ID)
	}
	return d.move(ctx, r)
}

// movePause keeps a message that cannot be moved from coming back in a tight loop.
const movePause = time.Second

// move publishes a copy, and settles when that was confirmed. Without a confirm the delivery is given back: the attempt
// is made again.
func (d *delivery) move(ctx context.Context, r *kgo.Record) error {
	d.s.mu.Lock()
	err := d.claim()
	d.s.mu.Unlock()
	if err != nil {
		return err
	}
	if err = d.s.b.move(ctx, r); err != nil {
		_ = backoff.Sleep(ctx, movePause) // cut short or not, the delivery goes back
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return errors.Join(err, d.release(err == nil))
}

// init restores the order of the heap.
func (h *dueHeap) init() { heap.Init(h) }
