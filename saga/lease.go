package saga

import (
	"context"
	"sync"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/id"
)

// identity is the name under which an orchestrator owns sagas. It dies with its lease.
type identity struct {
	node string
	life context.Context // ends with the lease: what handlers run under
	kill context.CancelCauseFunc
	stop context.Context // Run's: when it ends nothing new begins

	mu    sync.Mutex
	until time.Time // when the lease ends, by this process's clock, unless a heartbeat prolongs it
}

// end is when work under the identity stops. It leaves a margin: the store's clock and this one run at their own pace.
func (i *identity) end(lease time.Duration) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.until.Add(-lease / 8)
}

func (i *identity) alive(lease time.Duration) bool { return time.Now().Before(i.end(lease)) }

// heart keeps the lease alive. When it could not be prolonged in time, everything that runs under the identity is
// stopped, and a new identity is taken: others may have the old one's sagas by then.
func (o *Orchestrator) heart(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		self := &identity{node: o.cfg.Name + "-" + id.New(), stop: ctx, until: began.Add(o.cfg.Lease)}
		if err := o.store.Heartbeat(ctx, self.node, o.cfg.Lease); err != nil {
			if ctx.Err() == nil {
				o.cfg.Logger.ErrorContext(ctx, "saga: no lease from the store, no saga runs here", "error", err)
			}
			_ = backoff.Sleep(ctx, o.cfg.Poll)
			continue
		}
		self.life, self.kill = context.WithCancelCause(context.WithoutCancel(ctx)) //nolint:fatcontext // each lease has a life of its own
		o.setSelf(self)
		o.poke()
		for alive := true; alive && ctx.Err() == nil; {
			// The next look is due after a quarter of the lease, or at its end: no zombie may work on beyond that.
			timer := time.NewTimer(min(o.cfg.Lease/4, time.Until(self.end(o.cfg.Lease))))
			select {
			case <-ctx.Done(): // drain goes on under the lease, and prolongs it
			case <-timer.C:
				if alive = self.alive(o.cfg.Lease); alive {
					o.prolong(ctx, self)
				}
			}
			timer.Stop()
		}
		if ctx.Err() == nil {
			o.cfg.Logger.ErrorContext(ctx, "saga: lease lost, running sagas are left to others", "node", self.node)
			o.setSelf(nil)
			self.kill(ErrLostLease)
		}
	}
}

func (o *Orchestrator) setSelf(self *identity) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.self = self
}

// prolong makes one heartbeat, which must answer before the lease ends.
func (o *Orchestrator) prolong(ctx context.Context, self *identity) {
	began := time.Now()
	bctx, cancel := context.WithDeadline(ctx, self.end(o.cfg.Lease))
	defer cancel()
	if err := o.store.Heartbeat(bctx, self.node, o.cfg.Lease); err != nil {
		if ctx.Err() == nil {
			o.cfg.Logger.WarnContext(ctx, "saga: a heartbeat failed", "node", self.node, "error", err)
		}
		return
	}
	self.mu.Lock()
	self.until = began.Add(o.cfg.Lease)
	self.mu.Unlock()
}

// enter takes up to n places under the present identity, and returns how many it got. run or leave give each back.
func (o *Orchestrator) enter(n int) (self *identity, places int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.self == nil || o.self.stop.Err() != nil || !o.self.alive(o.cfg.Lease) {
		return nil, 0
	}
	for ; places < n; places++ {
		select {
		case o.slots <- struct{}{}:
			o.busy.Add(1)
		default:
			return o.self, places
		}
	}
	return o.self, places
}

func (o *Orchestrator) leave() {
	<-o.slots
	o.busy.Done()
}
