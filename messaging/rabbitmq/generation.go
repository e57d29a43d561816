package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// generation is one channel of a stream.
type generation struct {
	c          *conn
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery
	gone       chan struct{}
	err        error // why it is gone
	ops        chan settling
	ended      bool // deliveries is closed; for Receive only

	mu   sync.Mutex
	open map[uint64]*delivery // received and not settled, by tag
}

// dead reports whether the channel has ended.
func (g *generation) dead() bool {
	select {
	case <-g.gone:
		return true
	default:
		return g.ch.IsClosed()
	}
}

// errCancelled is why a channel ends whose queue the server no longer lets it consume from.
var errCancelled = errors.New("rabbitmq: the server cancelled the consumer: its queue was deleted or lost its leader")

// await waits for the end of the channel. A consumer that the server cancels ends its channel too. Both Go channels
// have room for the one value that amqp091 sends.
func (g *generation) await(closed <-chan *amqp.Error, cancelled <-chan string) {
	defer close(g.gone)
	g.err = amqp.ErrClosed
	var why *amqp.Error
	select {
	case why = <-closed:
	case _, ok := <-cancelled: // it is closed with the channel
		if ok {
			g.err = errCancelled
			_ = g.ch.Close()
		}
		why = <-closed
	}
	if why != nil {
		g.err = why
	}
}

// giveBackRest gives back what amqp091 still holds of a cancelled consumer.
func (g *generation) giveBackRest(ctx context.Context) error {
	for {
		select {
		case d, ok := <-g.deliveries:
			if !ok {
				return nil
			}
			_ = g.put(settling{tag: d.DeliveryTag, requeue: true})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settling is an acknowledgement on its way, or the wish to know that those before it are written.
type settling struct {
	tag     uint64
	requeue bool
	flushed chan struct{}
}

// put hands over to settle. There is room for all that can be unsettled, so it waits only for a moment.
func (g *generation) put(op settling) error {
	if g.dead() {
		return messaging.ErrClosed
	}
	select {
	case g.ops <- op:
		return nil
	case <-g.gone:
		return messaging.ErrClosed
	}
}

// flush waits until the acknowledgements before it are written.
func (g *generation) flush(within time.Duration) {
	op := settling{flushed: make(chan struct{})}
	if g.put(op) != nil {
		return
	}
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-op.flushed:
	case <-g.gone:
	case <-t.C:
	}
}

// settle writes acknowledgements, as many at a time as there are.
func (g *generation) settle() {
	a := acknowledger{ch: g.ch, next: 1, ahead: map[uint64]bool{}}
	var batch []settling // reused
	for {
		select {
		case op := <-g.ops:
			batch = append(batch[:0], op)
		case <-g.gone:
			return
		}
		batch = g.takeReady(batch)
		if a.write(batch) == nil {
			continue
		}
		// A write failed: so has the connection, as its watcher will notice.
		select {
		case <-g.gone:
			return
		case <-time.After(time.Second):
		}
	}
}

// takeReady appends what can be had without waiting.
func (g *generation) takeReady(batch []settling) []settling {
	for {
		select {
		case op := <-g.ops:
			batch = append(batch, op)
		default:
			return batch
		}
	}
}

// acknowledger writes acknowledgements: where all tags up to one are settled, that one acknowledges for all.
type acknowledger struct {
	ch    *amqp.Channel
	next  uint64          // the lowest tag that is not settled
	ahead map[uint64]bool // settled tags above it; true: to be acknowledged
}

func (a *acknowledger) write(batch []settling) (err error) {
	slices.SortFunc(batch, func(x, y settling) int { return cmp.Compare(x.tag, y.tag) }) // gives back in order
	for _, op := range batch {
		switch {
		case op.flushed != nil:
		case op.requeue:
			err = errors.Join(err, a.ch.Nack(op.tag, false, true))
			a.ahead[op.tag] = false
		default:
			a.ahead[op.tag] = true
		}
	}
	if last := a.advance(); last > 0 {
		err = errors.Join(err, a.ch.Ack(last, true))
	}
	for tag, ack := range a.ahead {
		if ack {
			err = errors.Join(err, a.ch.Ack(tag, false))
			a.ahead[tag] = false
		}
	}
	for _, op := range batch {
		if op.flushed != nil {
			close(op.flushed)
		}
	}
	return err
}

// advance moves next past the settled tags. It returns the last of them that is to be acknowledged, or 0.
func (a *acknowledger) advance() (last uint64) {
	for ack, ok := a.ahead[a.next]; ok; ack, ok = a.ahead[a.next] {
		if ack {
			last = a.next
		}
		delete(a.ahead, a.next)
		a.next++
	}
	return last
}
