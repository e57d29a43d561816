package saga

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/id"
)

// identity is the name under which an orchestrator owns sagas. It ends with its lease.
type identity struct {
	node  string
	life  context.Context // ends with the lease: what handlers run under
	kill  context.CancelCauseFunc
	stop  context.Context // when it ends nothing new begins: with Run's, or by yield
	yield context.CancelFunc

	places int           // slots taken under it; guarded by the orchestrator's mu
	idle   chan struct{} // receives when places becomes 0
	unsure atomic.Bool   // it may own sagas that do not run here

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

// stopSignal is closed when nothing new may begin.
type stopSignal <-chan struct{}

func (s stopSignal) given() bool {
	select {
	case <-s:
		return true
	default:
		return false
	}
}

// heartbeat keeps the lease alive until ctx ends. When the lease could not be prolonged in time, everything that runs
// under the identity is stopped and a new identity is taken: others may have taken the sagas of the old one by then.
func (o *Orchestrator) heartbeat(ctx context.Context) {
	for ctx.Err() == nil {
		self, err := o.newIdentity(ctx)
		if err != nil {
			if ctx.Err() == nil {
				o.cfg.Logger.ErrorContext(ctx, "saga: no lease from the store, no saga runs here", "error", err)
			}
			_ = backoff.Sleep(ctx, o.cfg.Poll)
			continue
		}
		o.setSelf(self)
		o.wake()
		alive := true
		for alive && ctx.Err() == nil && !self.unsure.Load() {
			alive = o.keepAlive(ctx, self, ctx.Done())
		}
		switch {
		case ctx.Err() != nil: // drain prolongs the lease from now on
		case self.alive(o.cfg.Lease):
			o.retire(ctx, self)
		default:
			o.setSelf(nil)
			o.lost(ctx, self)
		}
	}
}

// newIdentity takes a lease under a new name.
func (o *Orchestrator) newIdentity(ctx context.Context) (*identity, error) {
	self := &identity{node: o.cfg.Name + "-" + id.New(), idle: make(chan struct{}, 1), until: time.Now().Add(o.cfg.Lease)}
	if err := o.store.Heartbeat(ctx, self.node, o.cfg.Lease); err != nil {
		return nil, err
	}
	self.life, self.kill = context.WithCancelCause(context.WithoutCancel(ctx))
	self.stop, self.yield = context.WithCancel(ctx)
	return self, nil
}

// keepAlive waits until the next heartbeat is due and prolongs the lease, or returns early when interrupt is ready. It
// reports false when the lease has ended. A heartbeat is due after a quarter of the lease, or at its end: no work goes
// on beyond that.
func (o *Orchestrator) keepAlive(ctx context.Context, self *identity, interrupt <-chan struct{}) bool {
	timer := time.NewTimer(min(o.cfg.Lease/4, time.Until(self.end(o.cfg.Lease))))
	defer timer.Stop()
	select {
	case <-interrupt:
		return true
	case <-timer.C:
	}
	if !self.alive(o.cfg.Lease) {
		return false
	}
	o.prolong(ctx, self)
	return true
}

func (o *Orchestrator) lost(ctx context.Context, self *identity) {
	o.cfg.Logger.ErrorContext(ctx, "saga: lease lost, running sagas are left to others", "node", self.node)
	self.kill(ErrLostLease)
}

// retire makes room for a new identity where the store's answer to a write was lost: this identity may own a saga that
// does not run here. The steps that run under it end; then it leaves, so that all that it still owns is free. drain
// waits for it.
func (o *Orchestrator) retire(ctx context.Context, self *identity) {
	o.mu.Lock()
	o.self = nil
	o.retired[self] = struct{}{}
	o.busy.Add(1)
	o.mu.Unlock()
	self.yield()
	ctx = context.WithoutCancel(ctx)
	working := func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return self.places > 0
	}
	go func() {
		defer o.busy.Done()
		defer func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.retired, self)
		}()
		for working() {
			if !o.keepAlive(ctx, self, self.idle) {
				o.lost(ctx, self)
				return
			}
		}
		self.kill(ErrLostLease)
		o.leaveStore(ctx, self)
		o.wake()
	}()
}

// leaveStore ends a lease.
func (o *Orchestrator) leaveStore(ctx context.Context, self *identity) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := o.store.Leave(ctx, self.node); err != nil {
		o.cfg.Logger.WarnContext(ctx, "saga: could not end the lease, it runs out by itself", "node", self.node, "error", err)
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
