package saga

import (
	"context"
	"runtime/debug"
)

// Callers that wait for a saga are notified of changes that this process stores, and need not ask the store.

// subscribe returns a channel that gets the record whenever this process stores a change of the saga; only the latest
// is kept. ended is the record of one that has ended here a short while ago, and here says that it is at work.
func (o *Orchestrator) subscribe(id string) (changed chan Record, ended *Record, here bool, cancel func()) {
	changed = make(chan Record, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting[id] == nil {
		o.waiting[id] = map[chan Record]struct{}{}
	}
	o.waiting[id][changed] = struct{}{}
	_, here = o.here[id]
	return changed, o.last.get(id), here, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.waiting[id], changed)
		if len(o.waiting[id]) == 0 {
			delete(o.waiting, id)
		}
	}
}

// markRunning notes that a saga runs in this process, unmark that it no longer does.
func (o *Orchestrator) markRunning(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.here[id] = struct{}{}
}

func (o *Orchestrator) unmark(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.here, id)
}

// changed notifies waiting callers and OnChange of a record that was stored.
func (o *Orchestrator) changed(ctx context.Context, r Record) {
	o.mu.Lock()
	waiting := o.waiting[r.ID]
	o.last.forget(r.ID) // an operator may have retried a stuck saga
	if r.Status.Ended() || len(waiting) > 0 {
		kept := r.Clone()
		if r.Status.Ended() && r.Status != Stuck && len(kept.State) <= maxRecentState {
			o.last.put(&kept) // a stuck saga may be retried on another node
		}
		for c := range waiting {
			select {
			case <-c: // an older one that was not received
			default:
			}
			c <- kept
		}
	}
	o.mu.Unlock()
	if o.cfg.OnChange != nil {
		o.notifyOnChange(ctx, r.Clone())
	}
}

func (o *Orchestrator) notifyOnChange(ctx context.Context, r Record) {
	defer func() {
		if p := recover(); p != nil { // the saga goes on
			o.cfg.Logger.ErrorContext(
				ctx, "saga: OnChange panicked", "saga", r.Name, "saga_id", r.ID, "panic", p, "stack", string(debug.Stack()),
			)
		}
	}()
	o.cfg.OnChange(ctx, r)
}

// maxRecentState bounds the memory of recent: its 1,024 records hold at most 16 MiB of states.
const maxRecentState = 16 << 10

// recent holds the sagas that ended last, in bounded memory.
type recent struct {
	byID map[string]*Record
	ring []string
	next int
}

func newRecent(n int) *recent { return &recent{byID: map[string]*Record{}, ring: make([]string, n)} }

func (r *recent) get(id string) *Record { return r.byID[id] }

func (r *recent) forget(id string) { delete(r.byID, id) }

func (r *recent) put(rec *Record) {
	if r.byID[rec.ID] == nil {
		delete(r.byID, r.ring[r.next])
		r.ring[r.next] = rec.ID
		r.next = (r.next + 1) % len(r.ring)
	}
	r.byID[rec.ID] = rec
}
