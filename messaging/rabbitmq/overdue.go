package rabbitmq

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
)

// A delivery that is not settled within the server's consumer timeout (30 minutes by default) loses its channel, and
// comes again while its handler still runs. Such an attempt counts: else it would be repeated without end.

// overdue counts attempts that the server's consumer timeout has ended.
type overdue struct {
	any atomic.Bool

	mu     sync.Mutex
	counts map[messageID]int
}

// maxOverdue bounds the messages that are counted.
const maxOverdue = 10_000

// note counts the open deliveries of a channel that the server has closed because of the consumer timeout.
func (o *overdue) note(g *generation) {
	timeout, ok := consumerTimeout(g.err)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.counts) > maxOverdue || o.counts == nil {
		o.counts = map[messageID]int{}
	}
	for _, d := range g.open {
		if d.e.ID != "" && time.Since(d.received) >= timeout {
			o.counts[messageID{d.e.Source, d.e.ID}]++
			o.any.Store(true)
		}
	}
}

// consumerTimeout returns the timeout when it is what ended a channel.
func consumerTimeout(err error) (time.Duration, bool) {
	var e *amqp.Error
	if !errors.As(err, &e) || e.Code != amqp.PreconditionFailed || !strings.Contains(e.Reason, "timed out") {
		return 0, false
	}
	var ms int64
	if _, words, ok := strings.Cut(e.Reason, "Timeout value used: "); ok {
		_, _ = fmt.Sscanf(words, "%d", &ms) // 0: all that are open count
	}
	return time.Duration(ms) * time.Millisecond, true
}

// attempts returns how many attempts of a message that comes again were ended.
func (o *overdue) attempts(raw *amqp.Delivery, e messaging.Envelope) int {
	if !raw.Redelivered || !o.any.Load() {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[messageID{e.Source, e.ID}]
}

// settled forgets a message: what is made of it has the count in its header.
func (o *overdue) settled(e messaging.Envelope) {
	if !o.any.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.counts, messageID{e.Source, e.ID})
	o.any.Store(len(o.counts) > 0)
}
