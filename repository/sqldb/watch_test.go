package sqldb

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A wait ends within a fiftieth of the limit after it; what pauses and what has ended does not, however many there are.
func TestWaitsEndAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = time.Minute
		w := newWatch(limit)
		paused, reader := w.begin(t.Context())
		reader.pause()
		_, ended := w.begin(t.Context())
		ended.end()
		for i := range 100 {
			time.Sleep(limit / 7)
			start := time.Now()
			ctx, v := w.begin(t.Context())
			if i%3 == 0 {
				v.end()
				continue
			}
			reader.begin()
			reader.pause()
			if i%3 == 1 { // another wait begins meanwhile
				time.Sleep(limit / 2)
				start = time.Now()
				v.begin()
			}
			<-ctx.Done()
			if took := time.Since(start); took < limit || took > limit+limit/50 || !v.over() {
				t.Fatalf("wait %d ended after %s", i, took)
			}
			v.end()
		}
		if paused.Err() != nil || ended.over() {
			t.Errorf("a paused wait has ended with %v, one that had ended %v", paused.Err(), ended.over())
		}
		reader.end()
		synctest.Wait()
		time.Sleep(2 * limit)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.runs || len(w.waits) != 0 {
			t.Errorf("the timer runs for %d waits", len(w.waits))
		}
	})
}

// Without a limit, and where the caller ends the context, nothing is added.
func TestWaitsWithoutALimit(t *testing.T) {
	ctx, v := newWatch(-1).begin(t.Context())
	v.begin()
	v.pause()
	v.end()
	if v.over() || ctx != t.Context() {
		t.Error("a wait without a limit has one")
	}
	parent, cancel := context.WithCancel(t.Context())
	ctx, v = newWatch(time.Hour).begin(parent)
	cancel()
	if <-ctx.Done(); v.over() {
		t.Error("the caller's end counts as the limit's")
	}
	v.end()
}
