package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/messaging"
)

// delivery implements messaging.Delivery.
type delivery struct {
	s     *stream
	reply string // where it is settled
	e     messaging.Envelope

	sequence   uint64 // in the stream
	deliveries int    // this one included
	stored     time.Time
	delay      time.Duration // after it was stored
	attempt    int
	unhandled  int
	settled    atomic.Bool
}

func newDelivery(s *stream, m *nats.Msg) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	return &delivery{s: s, reply: m.Reply, e: s.b.decode(m), sequence: meta.Sequence.Stream,
		deliveries: int(min(meta.NumDelivered, 1<<30)),
		stored:     meta.Timestamp, delay: time.Duration(number(m, headerDelay)) * time.Millisecond,
		attempt: number(m, headerAttempts) + 1, unhandled: number(m, headerUnhandled)}, nil
}

// maxWaits bounds how often a retry is put back before its time: a client's clock may be wrong.
const maxWaits = 3

// waits returns how long a retry that has just come is to wait. The first pause is measured by the server alone. The
// clock of this process is asked only when something ended the pause early, such as a consumer that died.
func (d *delivery) waits() time.Duration {
	switch {
	case d.delay <= 0 || d.deliveries > maxWaits:
		return 0
	case d.deliveries == 1:
		return d.delay
	}
	if rest := time.Until(d.stored.Add(d.delay)); rest > time.Second {
		return min(rest, d.delay)
	}
	return 0
}

// Envelope implements messaging.Delivery.
func (d *delivery) Envelope() messaging.Envelope { return d.e }

// Attempt implements messaging.Delivery.
func (d *delivery) Attempt() int { return d.attempt }

// Advance implements messaging.Delivery.
func (d *delivery) Advance() { d.attempt++ }

// Unhandled implements messaging.Delivery.
func (d *delivery) Unhandled() int { return d.unhandled }

// claim makes the caller the one who settles.
func (d *delivery) claim() error {
	d.s.mu.Lock()
	closed := d.s.closed
	d.s.mu.Unlock()
	if closed || !d.settled.CompareAndSwap(false, true) {
		return messaging.ErrClosed
	}
	return nil
}

var ack = []byte("+ACK")

// settle sends the server the outcome of the delivery, and makes room for another one.
func (d *delivery) settle(verdict []byte) error {
	err := d.s.b.link.nc.Publish(d.reply, verdict)
	d.s.mu.Lock()
	delete(d.s.open, d)
	d.s.pull()
	d.s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", messaging.ErrClosed, err)
	}
	return nil
}

// nak gives it back: it comes again after the delay.
func (d *delivery) nak(delay time.Duration) {
	verdict := []byte("-NAK")
	if delay > 0 {
		verdict = append(verdict, ` {"delay": `+strconv.FormatInt(delay.Nanoseconds(), 10)+`}`...)
	}
	_ = d.s.b.link.nc.Publish(d.reply, verdict) // else it comes again after AckWait
}

// Ack implements messaging.Delivery. It hands over to the connection: an acknowledgement that gets lost has the message
// come again.
func (d *delivery) Ack(context.Context) error {
	if err := d.claim(); err != nil {
		return err
	}
	return d.settle(ack)
}

// Requeue implements messaging.Delivery.
func (d *delivery) Requeue(context.Context) error {
	if err := d.claim(); err != nil {
		return err
	}
	return d.settle([]byte("-NAK"))
}

// Retry implements messaging.Delivery.
func (d *delivery) Retry(ctx context.Context, delay time.Duration, reason error) error {
	attempts, unhandled := d.attempt, d.unhandled
	if errors.Is(reason, messaging.ErrNoHandler) {
		attempts, unhandled = d.attempt-1, d.unhandled+1
	}
	b, group := d.s.b, d.s.sub.Group
	if keep := b.cfg.Keep; keep > 0 && delay >= keep { // it would be deleted while it waits
		return d.DeadLetter(ctx, errors.Join(fmt.Errorf("jetstream: a pause of %v is as long as the stream keeps messages",
			delay), reason))
	}
	m := b.copy(b.retrySubject(group), "retry", group, d.sequence, d.stored, d.e)
	m.Header.Set(headerAttempts, strconv.Itoa(attempts))
	if unhandled > 0 {
		m.Header.Set(headerUnhandled, strconv.Itoa(unhandled))
	}
	if delay > 0 {
		m.Header.Set(headerDelay, strconv.FormatInt(max(delay.Milliseconds(), 1), 10))
	}
	if b.tooLarge(m, 0) != nil { // of another program
		return d.DeadLetter(ctx, errors.Join(errors.New("jetstream: the server's limit leaves no room for another attempt"),
			reason))
	}
	return d.move(ctx, m)
}

// DeadLetter implements messaging.Delivery.
func (d *delivery) DeadLetter(ctx context.Context, reason error) error {
	b, group := d.s.b, d.s.sub.Group
	m := b.copy(b.deadSubject(group), "dead", group, d.sequence, d.stored, d.e)
	m.Header.Set(headerAttempts, strconv.Itoa(d.attempt))
	m.Header.Set(headerOrigin, escape(group))
	if reason != nil {
		r := reason.Error()
		m.Header.Set(headerReason, escape(r[:min(len(r), maxReason)]))
	}
	if b.tooLarge(m, 0) != nil { // of another program, or with a long reason: what identifies it stays
		dropped := 0
		for name := range m.Header {
			if lower := strings.ToLower(name); !reserved(lower) || lower == headerReason {
				delete(m.Header, name)
				dropped++
			}
		}
		b.cfg.Logger.ErrorContext(ctx, "jetstream: a dead letter loses headers for which the server has no room", "group",
			group, "message_id", d.e.ID, "headers", dropped)
	}
	return d.move(ctx, m)
}

// errDeliveryLimit is the reason of a dead letter that was delivered too often.
var errDeliveryLimit = errors.New("jetstream: delivery_limit: it was delivered too often without being settled")

// exhausted makes a dead letter of a delivery that was made too often.
func (d *delivery) exhausted() {
	ctx, cancel := context.WithTimeout(d.s.b.ctx, 2*ackTimeout)
	defer cancel()
	d.s.b.cfg.Logger.Error("jetstream: a message became a dead letter: it was delivered too often without being settled",
		"group", d.s.sub.Group,
		"topic", d.e.Type, "message_id", d.e.ID, "deliveries", d.deliveries)
	if err := d.DeadLetter(ctx, errDeliveryLimit); err != nil && !errors.Is(err, messaging.ErrClosed) { // it comes again
		d.s.b.cfg.Logger.Warn("jetstream: a message cannot become a dead letter", "group", d.s.sub.Group, "message_id",
			d.e.ID, "error", err)
	}
}

// copy makes the message that takes an event elsewhere. Its message id is that of the move: however often it is made
// within Config.Duplicates, there is one copy.
func (b *Broker) copy(subject, move, group string, sequence uint64, stored time.Time, e messaging.Envelope) *nats.Msg {
	h := newHeaders(len(e.Headers) + 12)
	h.stamp(e)
	h.set(headerMessageID, "sillar/"+move+"/"+token(group)+"/"+strconv.FormatUint(sequence, 10)+"/"+
		strconv.FormatInt(stored.UnixNano(), 36))
	h.set(headerTopic, escape(e.Type))
	return &nats.Msg{Subject: subject, Header: h.all, Data: e.Body}
}

// movePause keeps a message that cannot be moved from coming back in a tight loop.
const movePause = time.Second

// move publishes a copy, and acknowledges when that was confirmed. Without a confirm the delivery is given back: the
// attempt is made again.
func (d *delivery) move(ctx context.Context, m *nats.Msg) error {
	if err := d.claim(); err != nil {
		return err
	}
	if err := d.s.b.move(ctx, m); err != nil {
		_ = backoff.Sleep(ctx, movePause) // cut short or not, the delivery goes back
		return errors.Join(err, d.settle([]byte("-NAK")))
	}
	return d.settle(ack)
}
