package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// noBroker reports whether an error says nothing about the event itself. A broker that has taken the event and does not
// confirm it in all the time there was may do so with this one only, as where its queue has lost its majority: if that
// counted as no broker, as many of them as make a batch would keep all others from their turn.
func noBroker(err error) bool {
	if errors.Is(err, messaging.ErrUnknownOutcome) && errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, messaging.ErrBlocked) {
		return false
	}
	for _, e := range []error{messaging.ErrBlocked, messaging.ErrClosed, messaging.ErrUnknownOutcome, context.Canceled,
		context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// outagePause bounds the pause of events that were held because the broker took none: it does not grow with their
// attempts, since a broker that is back is to get them soon. They are held, not given back: where it is a
// single full queue, the events of others get their turn.
const outagePause = 5 * time.Second

// healthTimeout bounds the question whether the broker works.
const healthTimeout = time.Second

// outage reports whether a round failed by the broker's fault, though the broker has answered: it refused every event,
// or confirmed none. Of a single one that says nothing, unless the publisher has a method Health that returns an error.
func (r *Relay) outage(ctx context.Context, errs []error) bool {
	refused := 0
	for _, err := range errs {
		switch {
		case errors.Is(err, messaging.ErrNacked), errors.Is(err, messaging.ErrUnknownOutcome):
			refused++
		case err == nil || !noBroker(err):
			return false
		}
	}
	if refused != 1 {
		return refused > 1
	}
	h, ok := r.pub.(interface {
		Health(ctx context.Context) error
	})
	if !ok {
		return false
	}
	hctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
	defer cancel()
	return h.Health(hctx) != nil
}
