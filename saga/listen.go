package saga

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// Listener is a Store that learns at once which sagas other processes end, where its database notifies.
type Listener interface {
	// Listen calls ended with ids of sagas that have ended, in this process or another, until ctx ends or its
	// connection breaks; ended may be called by several goroutines at once. It returns nil when ctx has ended or the
	// database does not notify, and errors.ErrUnsupported when the database does and something between prevents it.
	// Notifications are hints: some may be missing.
	Listen(ctx context.Context, ended func(ids []string)) error
}

// listening is what an orchestrator knows of the notifications of its store.
type listening struct {
	from    Listener    // nil: there are none
	refused atomic.Bool // none will come
	works   atomic.Bool // one has come, and the connection is there
	missed  atomic.Bool // the log says that none come
}

// pollEvery is the interval at which the ends of sagas in other processes are polled.
func (l *listening) pollEvery() time.Duration {
	if l.works.Load() {
		return waitPollNotified
	}
	return waitPoll
}

// listen looks for the sagas of which notifications come, until ctx ends.
func (o *Orchestrator) listen(ctx context.Context) {
	pause := backoff.Exponential(time.Second, 30*time.Second)
	for failed := 1; ctx.Err() == nil; failed++ {
		err := o.listening.from.Listen(ctx, func(ids []string) {
			o.listening.works.Store(true)
			_ = o.look(ctx, o.awaited(ids)) // poll in addition
		})
		if o.listening.works.Swap(false) {
			failed = 0
			o.listening.missed.Store(false)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !o.listening.missed.Swap(true) {
			o.cfg.Logger.WarnContext(ctx, "saga: no notifications of sagas that other processes end, asking the store instead",
				"poll", waitPoll, "error", err)
		}
		if err == nil || errors.Is(err, errors.ErrUnsupported) {
			o.listening.refused.Store(true)
			return
		}
		_ = backoff.Sleep(ctx, pause.Delay(failed))
	}
}
