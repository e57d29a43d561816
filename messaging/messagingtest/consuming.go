package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sillar-go/sillar/messaging"
)

func groups(e *env) {
	a, b := e.subscribe("a", 1, "t"), e.subscribe("b", 1, "t")
	e.publish("t", 1, messaging.WithID("x"))
	for _, s := range []messaging.Stream{a, b} {
		d := e.receive(s)
		if d.Envelope().ID != "x" {
			e.Fatalf("got %s", d.Envelope().ID)
		}
		e.must(d.Ack(e.ctx))
		e.nothing(s)
		e.must(s.Close())
	}
}

// Consumers of one group share its messages.
func compete(e *env) {
	if e.features.OrderByKey { // which of them gets a message is decided by its key: see keysAcrossConsumers
		e.Skip("declared otherwise")
	}
	s1, s2 := e.subscribe("g", 1, "t"), e.subscribe("g", 1, "t")
	for i := range 4 {
		e.publish("t", i, messaging.WithID(fmt.Sprint(i)))
	}
	var got []string
	for range 2 {
		d1, d2 := e.receive(s1), e.receive(s2)
		got = append(got, d1.Envelope().ID, d2.Envelope().ID)
		e.must(d1.Ack(e.ctx))
		e.must(d2.Ack(e.ctx))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		e.Fatalf("got %v", got)
	}
	e.nothing(s1)
	e.must(s1.Close())
	e.must(s2.Close())
}

func delayedRetry(e *env) {
	const delay = 300 * time.Millisecond
	s := e.subscribe("g", 2, "t")
	e.publish("t", 1, messaging.WithID("slow"))
	d := e.receive(s)
	begin := time.Now()
	e.must(d.Retry(e.ctx, delay, errBoom))
	e.publish("t", 1, messaging.WithID("quick")) // is not held up
	q := e.receive(s)
	if q.Envelope().ID != "quick" || q.Attempt() != 1 {
		e.Fatalf("got %s at attempt %d", q.Envelope().ID, q.Attempt())
	}
	e.must(q.Ack(e.ctx))
	d = e.receive(s)
	if waited := time.Since(begin); d.Envelope().ID != "slow" || d.Attempt() != 2 || waited < delay ||
		waited > delay+5*time.Second {
		e.Fatalf("got %s at attempt %d after %v", d.Envelope().ID, d.Attempt(), waited)
	}
	e.must(d.Retry(e.ctx, 0, errBoom))
	d = e.receive(s)
	if d.Attempt() != 3 {
		e.Fatalf("attempt %d, want 3", d.Attempt())
	}
	e.must(d.Ack(e.ctx))
	e.must(s.Close())
}

// A pause ends also when the consumer that asked for it is closed meanwhile.
func delayOutlives(e *env) {
	if !e.features.Delays {
		e.Skip("not declared")
	}
	const delay = 500 * time.Millisecond
	s := e.subscribe("g", 1, "t")
	e.publish("t", 1)
	begin := time.Now()
	e.must(e.receive(s).Retry(e.ctx, delay, errBoom))
	e.must(s.Close())
	s = e.subscribe("g", 1, "t")
	d := e.receive(s)
	if waited := time.Since(begin); d.Attempt() != 2 || waited < delay {
		e.Fatalf("attempt %d after %v, want 2 after %v", d.Attempt(), waited, delay)
	}
	e.must(d.Ack(e.ctx))
	e.must(s.Close())
}

func retryStays(e *env) {
	a, b := e.subscribe("a", 1, "t"), e.subscribe("b", 1, "t")
	e.publish("t", 1)
	e.must(e.receive(b).Ack(e.ctx))
	e.must(e.receive(a).Retry(e.ctx, 50*time.Millisecond, errBoom))
	d := e.receive(a)
	e.must(d.DeadLetter(e.ctx, errBoom))
	e.dead("a", 1)
	n, err := e.Redrive(e.ctx, "a", 10)
	if n != 1 || err != nil {
		e.Fatalf("redrive: %d, %v", n, err)
	}
	e.must(e.receive(a).Ack(e.ctx))
	e.nothing(b)
	e.must(a.Close())
	e.must(b.Close())
}

func deadLetters(e *env) {
	e.bind("g", "t")
	var fixed atomic.Bool
	done := &log{}
	e.route(func(r *messaging.Router) {
		g := r.Group("g", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 2,
			Backoff: messaging.Constant(10 * time.Millisecond)}})
		messaging.HandleRaw(g, "t", func(_ context.Context, m messaging.Message[[]byte]) error {
			if !fixed.Load() {
				return fmt.Errorf("no stock: %w", errBoom)
			}
			done.add(fmt.Sprint(m.ID, "/", m.Attempt))
			return nil
		})
	})
	e.publish("t", order{"1"}, messaging.WithID("x"))
	e.publish("t", order{"2"}, messaging.WithID("y"))
	d := e.dead("g", 2)
	if d[0].Reason != "no stock: boom" || d[0].Attempts != 2 || d[0].Origin != "g" || d[0].Type != "t" ||
		!strings.HasPrefix(string(d[0].Body), `{"id":`) {
		e.Fatalf("dead letter %+v", d[0])
	}
	fixed.Store(true)
	if n, err := e.Redrive(e.ctx, "g", 1); n != 1 || err != nil {
		e.Fatalf("redrive one: %d, %v", n, err)
	}
	e.dead("g", 1)
	if n, err := e.Redrive(e.ctx, "g", 100); n != 1 || err != nil {
		e.Fatalf("redrive the rest: %d, %v", n, err)
	}
	e.until("the redriven messages", func() bool { return done.len() >= 2 })
	if got := done.sorted(); !slices.Equal(got, []string{"x/1", "y/1"}) {
		e.Fatalf("handled %v", got)
	}
	e.dead("g", 0)
}

// Looking at dead letters does not change them, however often.
func deadLettersStay(e *env) {
	s := e.subscribe("g", 5, "t")
	for i := range 3 {
		e.publish("t", i, messaging.WithID(fmt.Sprint(i)))
		e.must(e.receive(s).DeadLetter(e.ctx, errBoom))
	}
	for range 25 {
		if d := e.dead("g", 3); d[0].ID != "0" || d[1].ID != "1" || d[2].ID != "2" {
			e.Fatalf("order %s %s %s", d[0].ID, d[1].ID, d[2].ID)
		}
	}
	if d, err := e.DeadLetters(e.ctx, "g", 1); err != nil || len(d) != 1 {
		e.Fatalf("limit 1: %d, %v", len(d), err)
	}
	e.must(s.Close())
}

func poison(e *env) {
	e.bind("g", "t", "nobody.handles")
	e.route(func(r *messaging.Router) {
		unhandled := messaging.Retry{Attempts: 3, Backoff: messaging.Constant(10 * time.Millisecond)}
		messaging.Handle(r.Group("g", messaging.GroupConfig{Unhandled: unhandled}), "t",
			func(context.Context, messaging.Message[order]) error {
				e.Error("a body that does not decode was handled")
				return nil
			})
	})
	e.publish("t", []byte("{not json"))
	if d := e.dead("g", 1)[0]; string(d.Body) != "{not json" || d.Attempts != 1 ||
		!strings.Contains(d.Reason, messaging.ErrDecode.Error()) {
		e.Fatalf("dead letter %+v", d)
	}
	e.publish("nobody.handles", order{"1"})
	if d := e.dead("g", 2)[1]; !strings.Contains(d.Reason, messaging.ErrNoHandler.Error()) || d.Attempts != 1 {
		e.Fatalf("dead letter %+v", d)
	}
}

func panics(e *env) {
	e.bind("g", "t")
	var n atomic.Int32
	e.route(func(r *messaging.Router) {
		g := r.Group("g", messaging.GroupConfig{Retry: messaging.Retry{Attempts: 2,
			Backoff: messaging.Constant(10 * time.Millisecond)}})
		messaging.HandleRaw(g, "t", func(context.Context, messaging.Message[[]byte]) error { n.Add(1); panic("ouch") })
	})
	e.publish("t", 1)
	if d := e.dead("g", 1)[0]; n.Load() != 2 || !strings.Contains(d.Reason, "ouch") {
		e.Fatalf("%d attempts, dead letter %+v", n.Load(), d)
	}
}

func requeue(e *env) {
	s := e.subscribe("g", 1, "t")
	e.publish("t", 1)
	for range 3 {
		d := e.receive(s)
		if d.Attempt() != 1 {
			e.Fatalf("giving back counted: attempt %d", d.Attempt())
		}
		e.must(d.Requeue(e.ctx))
	}
	e.must(e.receive(s).Ack(e.ctx))
	e.must(s.Close())
}

func closeGivesBack(e *env) {
	s := e.subscribe("g", 10, "t")
	for i := range 5 {
		e.publish("t", i, messaging.WithID(fmt.Sprint(i)), messaging.WithKey("k"))
	}
	held := e.receive(s)
	e.must(e.receive(s).Ack(e.ctx))
	e.must(s.Close())
	if err := held.Ack(e.ctx); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("settling after Close: %v", err)
	}
	if _, err := s.Receive(e.ctx); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("Receive after Close: %v", err)
	}
	s = e.subscribe("g", 10, "t")
	var got []string
	for range 4 {
		d := e.receive(s)
		got = append(got, d.Envelope().ID)
		e.must(d.Ack(e.ctx))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"0", "2", "3", "4"}) {
		e.Fatalf("given back: %v", got)
	}
	e.nothing(s)
	e.must(s.Close())
}

func stopKeeps(e *env) {
	s := e.subscribe("g", 10, "t")
	for i := range 3 {
		e.publish("t", i, messaging.WithID(fmt.Sprint(i)))
	}
	held := e.receive(s)
	e.must(s.Stop())
	if _, err := s.Receive(e.ctx); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("Receive after Stop: %v", err)
	}
	other := e.subscribe("g", 10, "t")
	if e.features.OrderByKey { // what was not received waits for what may have its key
		e.must(held.Ack(e.ctx))
	}
	for range 2 { // what was not received goes on at once
		e.must(e.receive(other).Ack(e.ctx))
	}
	if !e.features.OrderByKey {
		e.must(held.Ack(e.ctx))
	}
	e.must(s.Close())
	e.nothing(other)
	e.must(other.Close())
}

func settlesOnce(e *env) {
	s := e.subscribe("g", 10, "t")
	e.publish("t", 1)
	d := e.receive(s)
	e.must(d.Ack(e.ctx))
	if err := d.Retry(e.ctx, 0, errBoom); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("settling twice: %v", err)
	}
	e.publish("t", 2) // the stream works on
	e.must(e.receive(s).Ack(e.ctx))
	e.nothing(s)
	e.must(s.Close())
}

func outlives(e *env) {
	e.bind("g", "t")
	e.publish("t", 1, messaging.WithID("x"))
	s := e.subscribe("g", 1, "t")
	d := e.receive(s)
	if d.Envelope().ID != "x" {
		e.Fatalf("got %s", d.Envelope().ID)
	}
	e.must(d.Ack(e.ctx))
	e.must(s.Close())
}

func prefetch(e *env) {
	s := e.subscribe("g", 2, "t")
	for i := range 3 {
		e.publish("t", i)
	}
	first := e.receive(s)
	second := e.receive(s)
	e.nothing(s)
	e.must(first.Ack(e.ctx))
	e.must(e.receive(s).Ack(e.ctx))
	e.must(second.Ack(e.ctx))
	e.must(s.Close())
}

// A router that is stopped finishes what runs, and loses and counts nothing else.
func drain(e *env) {
	e.bind("g", "t")
	started, done := make(chan struct{}, 10), &log{}
	stop := e.route(func(r *messaging.Router) {
		g := r.Group("g", messaging.GroupConfig{Prefetch: 10})
		messaging.HandleRaw(g, "t", func(ctx context.Context, m messaging.Message[[]byte]) error {
			started <- struct{}{}
			time.Sleep(100 * time.Millisecond)
			done.add(m.ID)
			return ctx.Err()
		})
	})
	for i := range 5 {
		e.publish("t", i, messaging.WithID(fmt.Sprint(i)))
	}
	<-started
	e.must(stop())
	s := e.subscribe("g", 10, "t")
	for range 5 - done.len() {
		d := e.receive(s)
		if d.Attempt() != 1 {
			e.Errorf("%s was given back at attempt %d", d.Envelope().ID, d.Attempt())
		}
		done.add(d.Envelope().ID)
		e.must(d.Ack(e.ctx))
	}
	e.nothing(s)
	if got := done.sorted(); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		e.Fatalf("handled or given back: %v", got)
	}
	e.must(s.Close())
}

func receiveContext(e *env) {
	s := e.subscribe("g", 1, "t")
	ctx, cancel := context.WithTimeout(e.ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := s.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		e.Fatalf("Receive: %v", err)
	}
	e.publish("t", 1) // a Receive that gave up has swallowed nothing
	e.must(e.receive(s).Ack(e.ctx))
	e.must(s.Close())
}
