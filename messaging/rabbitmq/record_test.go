package rabbitmq

import (
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

// A queue that stays full refuses its topic for an hour, while others are confirmed: channels are replaced ever more
// rarely. When the queue has room again, the next fault is met at once.
func TestReplacementsOfAFullQueueGrowRare(t *testing.T) {
	var r record
	now := time.Now()
	replaced := func(d time.Duration) (n int) {
		for end := now.Add(d); now.Before(end); now = now.Add(100 * time.Millisecond) {
			if _, again := r.failed("full", now, now, true, messaging.ErrNacked); again {
				n++
			}
			r.confirmed("fine")
		}
		return n
	}
	if n := replaced(time.Minute); n < 3 || n > 7 {
		t.Errorf("%d replacements in the first minute", n)
	}
	if n := replaced(time.Hour); n < 30 || n > 61 {
		t.Errorf("%d replacements in the hour after", n)
	}
	now = now.Add(time.Minute)
	r.confirmed("full")
	if n := replaced(10 * time.Second); n < 3 {
		t.Errorf("%d replacements after the fault was over", n)
	}
	now = now.Add(time.Hour)
	if n := replaced(10 * time.Second); n < 3 {
		t.Errorf("%d replacements after an hour without faults", n)
	}
}
