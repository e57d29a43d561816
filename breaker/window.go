package breaker

import (
	"sync"
	"time"
)

// window counts calls over a rolling time, in buckets by their completion.
type window struct {
	bucket time.Duration
	start  time.Time // monotonic: a clock that is set moves no bucket

	mu      sync.Mutex
	buckets [10]struct {
		at                  int64
		calls, failed, slow int
	}
}

func newWindow(d time.Duration) *window {
	return &window{bucket: max(1, d/10), start: time.Now()}
}

func (w *window) now() int64 { return int64(time.Since(w.start) / w.bucket) }

// add counts a call, and says that the rates may have risen: a call that is neither failed nor slow lowers them.
func (w *window) add(slow, failed bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.now()
	b := &w.buckets[at%10]
	if b.at != at {
		b.at, b.calls, b.failed, b.slow = at, 0, 0, 0
	}
	b.calls++
	if failed {
		b.failed++
	}
	if slow {
		b.slow++
	}
	return failed || slow
}

func (w *window) sum() (calls, failed, slow int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for _, b := range w.buckets {
		if b.at > now-10 {
			calls, failed, slow = calls+b.calls, failed+b.failed, slow+b.slow
		}
	}
	return calls, failed, slow
}
