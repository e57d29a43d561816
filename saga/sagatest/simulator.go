package sagatest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagamem"
)

const (
	leaseTime = 15 * time.Second
	// patience is how long a saga may take; late is when duplicates arrive.
	patience = 7 * 24 * time.Hour
	late     = 2 * time.Minute
	sagaID   = "explored"
)

// point is a place in a run where something can go wrong.
type point struct {
	name   string
	faults []Fault
}

// effect is what a step has done in the world.
type effect struct {
	applied int // how often
	undone  int
	shut    bool // the compensation came first: with a barrier the action is refused
}

// world is what a saga acts upon, and what watches it.
type world struct {
	cfg   ExploreConfig
	plan  map[string]Fault
	steps []saga.StepInfo
	store saga.Store
	over  chan struct{} // closed when the run ends: releases the goroutines of dead nodes

	mu       sync.Mutex
	seen     map[string]int
	points   []point
	effects  map[string]*effect
	keys     map[string]map[string]bool
	order    []string // first effects: "do a", "undo a"
	maxFence int64
	broken   []string
	lines    []string // of the story
	nodes    int
	launch   func()
	ended    saga.Record
}

var (
	errInjected = errors.New("sagatest: injected")
	errDead     = errors.New("sagatest: the node is dead")
	quiet       = slog.New(slog.DiscardHandler)
)

// play runs the definition once.
func play(t *testing.T, def saga.Definition, cfg ExploreConfig, plan Plan) *world {
	t.Helper()
	w := &world{
		cfg:     cfg,
		plan:    map[string]Fault{},
		seen:    map[string]int{},
		effects: map[string]*effect{},
		keys:    map[string]map[string]bool{},
	}
	for _, c := range plan {
		w.plan[c.Point] = c.Fault
	}
	w.steps = def.Steps()
	synctest.Test(t, func(t *testing.T) {
		w.over = make(chan struct{})
		w.store = sagamem.New()
		if cfg.Store != nil {
			w.store = cfg.Store()
		}
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		w.launch = func() {
			w.nodes++
			n := &node{Store: w.store, w: w, name: fmt.Sprintf("node%d", w.nodes)}
			simulated := saga.Substitute(def, n.handle)
			o := saga.Must(
				saga.New(
					n,
					saga.Config{Name: n.name, Lease: leaseTime, Poll: leaseTime / 3, Logger: quiet, Concurrency: 2, DrainTimeout: -1,
						ObserveInterval: -1},
					simulated,
				),
			)
			running.Go(func() { _ = o.Run(ctx) })
			if w.nodes == 1 {
				synctest.Wait() // it has its lease
				if _, err := simulated.Start(ctx, o, sagaID, json.RawMessage("{}")); err != nil {
					w.breaks("the saga could not be started: %v", err)
				}
			}
		}
		sendSignals(ctx, def, w)
		awaitEnd(ctx, w)
		time.Sleep(plan.onItsWay() + leaseTime)
		stop()
		close(w.over)
		running.Wait()
	})
	return w
}

// sendSignals sends the signals that the saga waits for, unless the plan keeps them back.
func sendSignals(ctx context.Context, def saga.Definition, w *world) {
	client := saga.Substitute(def, func(context.Context, *saga.Call) error { return nil })
	outside := saga.Must(saga.New(w.store, saga.Config{Logger: quiet}, client)) // sends signals and does not run
	w.launch()
	w.mu.Lock()
	w.launch() // a second node stands by
	w.mu.Unlock()
	for _, s := range w.steps {
		if s.Kind != "await" && s.Kind != "await-each" || w.at("event "+s.Name, Never) == Never {
			continue
		}
		time.AfterFunc(time.Second, func() {
			if s.Kind == "await-each" {
				_ = client.SignalEach(ctx, outside, sagaID, s.Name, "event-1", nil)
				return
			}
			_ = client.Signal(ctx, outside, sagaID, s.Name, nil)
		})
	}
}

func awaitEnd(ctx context.Context, w *world) {
	pause := time.Second
	for end := time.Now().Add(patience); ; {
		r, err := w.store.Get(ctx, sagaID)
		if err == nil && r.Status.Ended() {
			w.ended = r
			break
		}
		if time.Now().After(end) {
			w.breaks("the saga has not ended after %v: %s at step %d", patience, r.Status, r.Cursor)
			w.ended = r
			break
		}
		time.Sleep(pause)
		pause = min(pause*5/4, 10*time.Minute)
	}
}

// onItsWay is how long after the end of a saga something can still arrive: a duplicate, or what a stalled node was
// about to do.
func (p Plan) onItsWay() (d time.Duration) {
	for _, c := range p {
		switch c.Fault {
		case Duplicate:
			d = max(d, late)
		case Stall:
			d = max(d, 2*leaseTime)
		}
	}
	return d
}

func (w *world) breaks(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

func (w *world) tell(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// at notes that a run has come to a point, and returns the fault that the plan has for it.
func (w *world) at(name string, faults ...Fault) Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[name]++
	name = fmt.Sprintf("%s #%d", name, w.seen[name])
	w.points = append(w.points, point{name, faults})
	f := w.plan[name]
	if f != "" {
		w.tell("Note over world: %s: %s", name, f)
	}
	return f
}

// node is a store as one orchestrator sees it, and the handlers that run there.
type node struct {
	saga.Store
	w    *world
	name string

	mu    sync.Mutex
	dead  bool
	until time.Time // stalled until then
}

// hit lets a fault happen to the node. It returns when the node goes on, with errDead when it never does.
func (n *node) hit(f Fault) error {
	switch f {
	case Crash:
		n.mu.Lock()
		n.dead = true
		n.mu.Unlock()
		n.w.mu.Lock()
		n.w.launch() // another one is started
		n.w.mu.Unlock()
	case Stall:
		n.mu.Lock()
		n.until = time.Now().Add(2 * leaseTime)
		n.mu.Unlock()
	}
	return n.wait()
}

// wait blocks the goroutines of a stalled node until it goes on, and those of a dead one until the run ends.
func (n *node) wait() error {
	for {
		n.mu.Lock()
		dead, d := n.dead, time.Until(n.until)
		n.mu.Unlock()
		switch {
		case dead:
			<-n.w.over
			return errDead
		case d <= 0:
			return nil
		}
		time.Sleep(d)
	}
}

// Save implements saga.Store.
func (n *node) Save(ctx context.Context, r saga.Record) error {
	if err := n.wait(); err != nil {
		return err
	}
	f := n.w.at("save before", Crash, Stall, Error)
	if f == Error {
		return errInjected
	}
	if err := n.hit(f); err != nil {
		return err
	}
	n.w.mu.Lock()
	given := n.w.maxFence // before the write: a claim that is made meanwhile may come after it
	n.w.mu.Unlock()
	if err := n.Store.Save(ctx, r); err != nil {
		return err
	}
	n.w.mu.Lock()
	if r.Fence < given {
		n.w.broken = append(
			n.w.broken,
			fmt.Sprintf("a write under fence %d succeeded after fence %d was given out", r.Fence, given),
		)
	}
	n.w.tell("%s->>store: %s, step %d", n.name, strings.ToLower(string(r.Status)), r.Cursor)
	n.w.mu.Unlock()
	f = n.w.at("save after", Crash, Stall, Error)
	if f == Error {
		return errInjected // the acknowledgement is lost
	}
	return n.hit(f)
}

// Claim implements saga.Store.
func (n *node) Claim(ctx context.Context, owner string, kinds []saga.Kind, limit int) ([]saga.Claimed, error) {
	if err := n.wait(); err != nil {
		return nil, err
	}
	got, err := n.Store.Claim(ctx, owner, kinds, limit)
	if len(got) == 0 || err != nil {
		return got, err
	}
	n.w.mu.Lock()
	n.w.maxFence = max(n.w.maxFence, got[0].Fence)
	n.w.tell("%s->>store: claim, fence %d", n.name, got[0].Fence)
	n.w.mu.Unlock()
	f := n.w.at("claim after", Crash, Stall, Error)
	if f == Error {
		return nil, errInjected // the answer is lost: the node does not know what it owns
	}
	if err := n.hit(f); err != nil {
		return nil, err
	}
	return got, nil
}

// Heartbeat implements saga.Store.
func (n *node) Heartbeat(ctx context.Context, owner string, d time.Duration) error {
	if err := n.wait(); err != nil {
		return err
	}
	return n.Store.Heartbeat(ctx, owner, d)
}

// Leave implements saga.Store.
func (n *node) Leave(ctx context.Context, owner string) error {
	if err := n.wait(); err != nil {
		return err
	}
	return n.Store.Leave(ctx, owner)
}

// handle is every handler: it sends a message to the participant, whose effect is in the world.
func (n *node) handle(_ context.Context, c *saga.Call) error {
	w, what := n.w, "do "+c.Step()
	before := []Fault{Crash, Stall, Error, Reject}
	if c.Compensating() {
		what, before = "undo "+c.Step(), []Fault{Crash, Stall, Error}
	}
	w.mu.Lock()
	if w.keys[what] == nil {
		w.keys[what] = map[string]bool{}
	}
	w.keys[what][c.Key()] = true
	w.mu.Unlock()
	w.checkIntent(c, what)
	f := w.at(what+" before", before...)
	switch f {
	case Error:
		return errInjected
	case Reject:
		return saga.Reject(errInjected)
	}
	if err := n.hit(f); err != nil {
		return err
	}
	err := w.apply(n.name, c)
	if err != nil {
		return err
	}
	f = w.at(what+" after", Crash, Stall, Error, Duplicate)
	switch f {
	case Error:
		return errInjected // the effect is there, the answer is lost
	case Duplicate:
		time.AfterFunc(late, func() { _ = w.apply("network", c) })
	}
	return n.hit(f)
}

// checkIntent checks that the store knows of an attempt before it runs: the step at the cursor of a claimed saga, or a
// compensation that is marked as begun. A handler whose saga was taken over is not checked.
func (w *world) checkIntent(c *saga.Call, what string) {
	r, err := w.store.Get(context.Background(), sagaID)
	if err != nil || r.Fence != c.Fence() {
		return
	}
	for i, st := range r.Steps {
		for _, s := range append([]saga.StepState{st}, st.Branches...) {
			known := r.Status == saga.Running && r.Owner != "" && r.Cursor == i
			if c.Compensating() {
				known = s.Undoing
			}
			if s.Name == c.Step() && !known {
				w.breaks("%s ran before its intent was stored", what)
			}
		}
	}
}

// apply is the participant.
func (w *world) apply(from string, c *saga.Call) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.effects[c.Step()]
	if e == nil {
		e = &effect{}
		w.effects[c.Step()] = e
	}
	alive := e.applied > e.undone
	first := func(what string) {
		w.order = append(w.order, what)
		w.tell("%s->>participant: %s", from, what)
	}
	if !c.Compensating() {
		switch {
		case !w.cfg.NoBarrier && e.shut:
			w.tell("participant-->>%s: %s comes too late, refused", from, c.Step())
			return saga.Reject(errors.New("too late"))
		case alive, !w.cfg.NoBarrier && e.applied > 0:
			return nil // a duplicate
		}
		e.applied++
		first("do " + c.Step())
		return nil
	}
	e.shut = true
	if alive {
		e.undone++
		first("undo " + c.Step())
	}
	return nil
}
