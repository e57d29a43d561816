package rabbitmq

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokermetrics"
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

// A channel that has messages under way and gets no confirm is replaced, though their callers wait on, and Health says
// so; a blocked connection or one confirm in between is no stall.
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

// A context that ends while confirms are awaited: each message that was written is waited for once in the background,
// or the counts of what is under way would be wrong.
func TestConfirmsOfABatchThatIsLeftAreAwaitedOnce(t *testing.T) {
	m, err := brokermetrics.New(nil, scope, "rabbitmq")
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{cfg: Config{Logger: slog.New(slog.DiscardHandler)}, meters: m, ctx: t.Context()}
	p := &publisher{b: b, link: newLink(b, "test"), jobs: make(chan *job)}
	g := &pubGen{c: &conn{}, gone: make(chan struct{}), retired: make(chan struct{}), retire: func() {}}
	defer close(g.gone)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		j := <-p.jobs
		for i := range j.sent {
			j.sent[i] = sending{confirm: &amqp.DeferredConfirmation{}, g: g}
		}
		cancel()
		close(j.written)
	}()
	out := make([]outgoing, 50)
	for i, err := range p.send(ctx, out, nil) {
		if !errors.Is(err, messaging.ErrUnknownOutcome) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	time.Sleep(10 * time.Millisecond) // for what goes on in the background
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.late); n != len(out) && n != len(out)-1 { // one is being waited for
		t.Errorf("%d messages are awaited in the background, want %d", n, len(out))
	}
}
