package saga

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sillar-go/sillar/internal/backoff"
)

// Callers that wait for a saga are notified of changes that this process stores, and need not ask the store.

const (
	// waitPoll is the interval at which the ends of sagas in other processes are polled.
	waitPoll = 250 * time.Millisecond
	// waitPollNotified is that interval while the store notifies.
	waitPollNotified = time.Second
	// waitCheck is how often a single saga is read without a notification.
	waitCheck = 30 * time.Second
)

// subscribe returns a channel that gets the record when this process ends the saga, or sees that it has ended
// elsewhere; only the latest is kept. ended is the record of one that has ended here a short while ago, and here says
// that it is at work.
func (o *Orchestrator) subscribe(id string) (end chan Record, ended *Record, here bool, cancel func()) {
	end = make(chan Record, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting[id] == nil {
		o.waiting[id] = map[chan Record]struct{}{}
	}
	o.waiting[id][end] = struct{}{}
	if o.stopPoll == nil {
		ctx, stop := context.WithCancel(context.Background())
		o.stopPoll = stop
		go o.poll(ctx)
	}
	_, here = o.here[id]
	return end, o.last.get(id), here, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.waiting[id], end)
		if len(o.waiting[id]) == 0 {
			delete(o.waiting, id)
		}
		if len(o.waiting) == 0 {
			o.stopPoll()
			o.stopPoll = nil
		}
	}
}

// poll looks for the ends of sagas that callers wait for and that do not run here, until the last caller has left.
func (o *Orchestrator) poll(ctx context.Context) {
	listens := o.listening.from == nil
	for backoff.Sleep(ctx, o.listening.pollEvery()) == nil {
		ids := o.awaitedElsewhere()
		if len(ids) > 0 && !listens && !o.listening.refused.Load() {
			listens = true
			go o.listen(ctx)
		}
		if err := o.look(ctx, ids); err != nil && ctx.Err() == nil {
			o.cfg.Logger.WarnContext(ctx, "saga: looking for the ends of sagas failed, trying again", "error", err)
			_ = backoff.Sleep(ctx, o.cfg.Poll)
		}
	}
}

// look sends the records of sagas that have ended to the callers that wait for them.
func (o *Orchestrator) look(ctx context.Context, ids []string) error {
	for ids := range slices.Chunk(ids, MaxFilterIDs) {
		ended, err := o.store.List(ctx, Filter{
			IDs: ids, Statuses: []Status{Completed, Compensated, Stuck}, Limit: len(ids),
		})
		if err != nil {
			return err
		}
		o.mu.Lock()
		for _, r := range ended {
			send(o.waiting[r.ID], r)
		}
		o.mu.Unlock()
	}
	return nil
}

// awaitedElsewhere returns the sagas that callers wait for and that do not run here.
func (o *Orchestrator) awaitedElsewhere() (ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.waiting {
		if _, here := o.here[id]; !here {
			ids = append(ids, id)
		}
	}
	return ids
}

// awaited returns the given sagas that callers wait for and that do not run here.
func (o *Orchestrator) awaited(ids []string) (list []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		_, here := o.here[id]
		if _, waited := o.waiting[id]; waited && !here {
			list = append(list, id)
		}
	}
	return list
}

// send gives a record to callers that wait. The orchestrator's mu is held.
func send(waiting map[chan Record]struct{}, r Record) {
	for c := range waiting {
		select {
		case <-c: // an older one that was not received
		default:
		}
		c <- r
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

// changed notifies OnChange of a record that was stored, and waiting callers of one that has ended, which it counts.
func (o *Orchestrator) changed(ctx context.Context, r Record) {
	if r.Status.Ended() {
		o.countEnd(ctx, r)
	}
	o.mu.Lock()
	o.last.forget(r.ID) // an operator may have retried a stuck saga
	if r.Status.Ended() {
		kept := r.Clone()
		if r.Status != Stuck && len(kept.State) <= maxRecentState {
			o.last.put(&kept) // a stuck saga may be retried on another node
		}
		send(o.waiting[r.ID], kept)
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

// recent holds the most recently ended sagas, in bounded memory.
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
