// Package live is the shop's live page: the traffic between the services, each order with the steps of its saga, the
// invariants, and controls to place orders and to inject faults.
//
// It shows and does what is reserved for operators. So it exists only in a shop that runs in one process on embedded
// defaults, and only for requests from the machine on which that runs; no other shop has it.
//
// What is seen is collected in figures.go (meters), orders.go (sagas), invariants.go and log.go, made into pieces of
// the page by map.go and view.go, and sent by stream.go; controls.go and traffic.go are what can be done, broker.go a
// broker that can be broken, inside.go how the services are asked; guard.go says who may. The page itself is
// page.html with its style and its script.
package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/saga"
)

// Refresh intervals while the page has viewers.
const (
	tick       = 200 * time.Millisecond // orders and log
	everyMeter = 3                      // ticks
	auditFloor = time.Second            // between two looks at the invariants, or more when they take long
	auditBound = 5 * time.Second
)

// Page is the page. Its parts are given to the services when they are made; Attach, then, hangs it into the gateway.
type Page struct {
	broker  *Broker
	faults  bool // the payment processor may be broken
	log     *slog.Logger
	journal journal
	orders  orderBook
	inside  inside
	traffic *traffic
	figures *figures
	nodes   []node

	mu      sync.Mutex
	viewers map[chan struct{}]struct{}
	wake    chan struct{}
	closing chan struct{}
	close   func()

	meters sync.Mutex // one reads them at a time
	vmu    sync.Mutex
	view   view
}

// New makes a page over the broker, which the services are given as Broker. faults says that the payment processor
// may be broken.
func New(broker messaging.Broker, faults bool) *Page {
	p := &Page{broker: NewBroker(broker), faults: faults, viewers: map[chan struct{}]struct{}{},
		wake: make(chan struct{}, 1), closing: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closing) })
	p.view = newView(faults)
	return p
}

// Broker is the broker that the services are to have.
func (p *Page) Broker() *Broker { return p.broker }

// LogWriter writes the log to out, and keeps the last lines for the page.
func (p *Page) LogWriter(out io.Writer) io.Writer { return teeWriter{out, &p.journal} }

// OnSaga takes the changes of the sagas.
func (p *Page) OnSaga(ctx context.Context, r saga.Record) { p.orders.observe(ctx, r) }

// Attach hangs the page into the gateway, which is the last of the services.
func (p *Page) Attach(services []*platform.Service) {
	gw := services[len(services)-1]
	byName := map[string]*platform.Service{}
	for _, s := range services {
		byName[s.Name] = s
	}
	p.log = gw.Log
	p.inside = inside{byName, gw.Guard}
	p.figures = newFigures(services)
	p.nodes = layout(services)
	p.traffic = newTraffic(p.inside, gw.URL(), p.note)

	plain := gw.Fallback
	gw.Mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if !fromHere(r) { // the page that every gateway has
			plain.ServeHTTP(w, r)
			return
		}
		p.serve(w, r)
	})
	gw.Mux.Handle("GET /live/stream", guard(http.HandlerFunc(p.stream)))
	for _, name := range []string{"live.css", "live.js", "icon.svg"} {
		gw.Mux.Handle("GET /live/"+name, guard(asset(name)))
	}
	for name, do := range p.controls() {
		gw.Mux.Handle("POST /live/"+name, guard(p.control(do)))
	}
	gw.Go("page", p.Run)
	gw.OnShutdown(p.close)
}

// Run collects what is shown while the page has viewers, until ctx ends.
func (p *Page) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { p.audits(ctx) })
	wg.Go(func() {
		select {
		case <-p.closing: // the listeners close: stop what the controls have started
			stop()
		case <-ctx.Done():
		}
		p.traffic.close()
	})
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		if !p.watched() {
			select {
			case <-p.wake:
			case <-ctx.Done():
				continue
			}
			n = 0
		}
		if n%everyMeter == 0 {
			p.measure(ctx)
		}
		p.notify()
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	wg.Wait()
	return nil
}

// audits looks at the invariants while the page has viewers, never for more than a tenth of the time.
func (p *Page) audits(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		next := auditFloor
		if p.watched() {
			began := time.Now()
			p.check(ctx)
			next = max(next, 10*time.Since(began))
		} else {
			next /= 4 // only to notice new viewers
		}
		pause.Reset(next)
	}
}

// check looks at the invariants once.
func (p *Page) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, auditBound)
	defer cancel()
	p.vmu.Lock()
	before := p.view.audit
	p.vmu.Unlock()
	now := p.look(ctx, before)
	if now.unknown != nil && ctx.Err() == nil {
		p.log.WarnContext(ctx, "the invariants cannot be looked at", "error", now.unknown)
	}
	mode := ""
	if p.faults {
		var processor struct{ Mode string }
		if err := p.inside.get(ctx, "payments", "/api/v1/processor", &processor); err == nil {
			mode = processor.Mode
		}
	}
	load := "off"
	if p.traffic.loading() {
		load = "on"
	}
	p.set(func(v *view) {
		if broken := now.broken(); broken != "" && broken != before.broken() {
			v.say("Invariants violated: " + broken + ".")
		}
		v.audit = now
		v.state["load"] = load
		if mode != "" {
			v.state["payments"] = mode // the demonstration sets it too
		}
	})
}

// measure reads the meters.
func (p *Page) measure(ctx context.Context) {
	p.meters.Lock()
	defer p.meters.Unlock()
	p.figures.update(ctx, time.Now())
	p.set(func(v *view) { v.measured(p.figures, p.nodes) })
}

// note records what happened.
func (p *Page) note(format string, args ...any) {
	p.set(func(v *view) { v.say(fmt.Sprintf(format, args...)) })
}

// set changes what is seen, and notifies the viewers.
func (p *Page) set(change func(*view)) {
	func() {
		p.vmu.Lock()
		defer p.vmu.Unlock()
		change(&p.view)
		p.view.render()
	}()
	p.notify()
}

// refused answers a control that could not be used.
func (p *Page) refused(w http.ResponseWriter, r *http.Request, err error) {
	var problem *platform.Problem
	if !errors.As(err, &problem) {
		p.log.ErrorContext(r.Context(), "a control of the page failed", "path", r.URL.Path, "error", err)
		problem = platform.Fail(http.StatusInternalServerError, "internal", "that did not work; the log says why")
	}
	problem.Write(r.Context(), w)
}
