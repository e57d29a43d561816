package sqldb

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// watch ends waits that take longer than a limit. One timer serves them all, and is set once in that time: a timer for
// each statement wakes the scheduler's poller, which takes a tenth of the time of a short one.
type watch struct {
	limit time.Duration // negative: none
	start time.Time     // the clock of since

	mu    sync.Mutex
	waits map[*wait]struct{}
	runs  bool // the timer
}

func newWatch(limit time.Duration) *watch {
	return &watch{limit: limit, start: time.Now(), waits: map[*wait]struct{}{}}
}

// wait is one or several waits with the same context. A nil wait has no limit.
type wait struct {
	watch   *watch
	cancel  context.CancelFunc
	since   atomic.Int64 // by the watch's clock; paused between two waits
	reached atomic.Bool
}

const paused = -1

// begin returns a context that is canceled when a wait takes too long. The first wait begins now.
func (w *watch) begin(ctx context.Context) (context.Context, *wait) {
	if w.limit < 0 {
		return ctx, nil
	}
	v := &wait{watch: w}
	ctx, v.cancel = context.WithCancel(ctx)
	v.begin()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits[v] = struct{}{}
	if !w.runs {
		w.runs = true
		time.AfterFunc(w.limit, w.tick)
	}
	return ctx, v
}

// tick ends what has waited too long, up to a fiftieth of the limit late, and sets the timer for the next one.
func (w *watch) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, next := time.Since(w.start), w.limit
	for v := range w.waits {
		since := v.since.Load()
		if since == paused {
			continue
		}
		if left := w.limit - now + time.Duration(since); left > 0 {
			next = min(next, left)
			continue
		}
		v.reached.Store(true)
		v.cancel()
		delete(w.waits, v)
	}
	if w.runs = len(w.waits) > 0; w.runs {
		time.AfterFunc(max(next, w.limit/50), w.tick)
	}
}

// begin begins another wait.
func (v *wait) begin() {
	if v != nil {
		v.since.Store(int64(time.Since(v.watch.start)))
	}
}

// pause ends a wait: what the caller does until the next one takes the time that it takes.
func (v *wait) pause() {
	if v != nil {
		v.since.Store(paused)
	}
}

// end ends the last wait, and the context.
func (v *wait) end() {
	if v == nil {
		return
	}
	v.watch.mu.Lock()
	delete(v.watch.waits, v)
	v.watch.mu.Unlock()
	v.cancel()
}

// over reports whether a wait took too long.
func (v *wait) over() bool { return v != nil && v.reached.Load() }
