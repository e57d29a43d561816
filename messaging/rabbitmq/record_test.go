package rabbitmq

import (
	"errors"
	"log/slog"
	"sync"
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

// A channel that has messages under way and gets no confirm is replaced, though their callers wait on, and Health says so; a
// blocked connection or one confirm in between is no stall.
func TestAStalledChannelIsReplaced(t *testing.T) {
	newGen := func() *pubGen {
		g := &pubGen{c: &conn{}, retired: make(chan struct{})}
		g.retire = sync.OnceFunc(func() { close(g.retired) })
		return g
	}
	retired := func(g *pubGen) bool {
		select {
		case <-g.retired:
			return true
		default:
			return false
		}
	}
	for name, c := range map[string]struct {
		each func(g *pubGen, second int)
		want bool
	}{
		"no confirm":  {func(*pubGen, int) {}, true},
		"one confirm": {func(g *pubGen, second int) { g.settled.Store(int64(min(second/3, 1))) }, false},
		"nothing out": {func(g *pubGen, _ int) { g.settled.Store(2) }, false},
		"blocked":     {func(g *pubGen, _ int) { g.c.blocked = "disk" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &publisher{b: &Broker{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}}
			g, w, now := newGen(), stallWatch{}, time.Now()
			g.written.Store(2)
			for second := range 7 {
				c.each(g, second)
				w.look(p, g, now.Add(time.Duration(second)*time.Second))
			}
			if retired(g) != c.want {
				t.Errorf("replaced: %v, want %v", !c.want, c.want)
			}
			if err := p.record.health(now.Add(7 * time.Second)); errors.Is(err, messaging.ErrUnknownOutcome) != c.want {
				t.Errorf("Health: %v", err)
			}
		})
	}
}
