package breaker

import (
	"context"
	"time"
)

// ticket is an admitted call.
type ticket struct {
	era   *era
	start time.Time
	given time.Duration // until the caller's deadline; 0 without one
	probe *probe
	held  bool      // a place in the bulkhead
	sent  time.Time // when the adaptive limit admitted it; zero without one
}

// admit decides about a call. The path through a closed breaker reads one word of memory.
func (b *Breaker) admit(ctx context.Context, end time.Time) (t ticket, err error) {
	if err := ended(ctx); err != nil {
		return t, err
	}
	var given time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		if given = time.Until(deadline); given <= 0 { // its timer may be late
			return t, context.DeadlineExceeded
		}
	}
	t.era = b.era.Load()
	if t.era.state != Closed {
		if t, err = b.admitNotClosed(t.era); err != nil {
			b.hooks.rejected(b.cfg.Name, err)
			return t, err
		}
	}
	t.given = given
	if b.timed() {
		t.start = time.Now()
	}
	if b.limit != nil && !b.limit.allow() {
		err = ErrLimited
	} else if b.places != nil {
		err = b.take(ctx, end)
		t.held = err == nil
	}
	if err == nil && b.adapt != nil {
		t.sent = time.Now()
		if !b.adapt.enter() {
			err = ErrOverloaded
		}
	}
	if err == nil {
		return t, nil
	}
	b.hooks.rejected(b.cfg.Name, err)
	if b.cfg.ObserveOnly && IsRejection(err) {
		return t, nil
	}
	b.release(&t)
	return t, err
}

// timed says whether the duration of calls is used.
func (b *Breaker) timed() bool { return b.cfg.SlowRate > 0 || b.cfg.OnCall != nil }

func (b *Breaker) admitNotClosed(e *era) (ticket, error) {
	if err := b.rejection(e); err != nil {
		return ticket{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if !b.era.Load().forced {
		b.reclaim(now)
		if done, err := b.machine.Allow(); err == nil { // may move open to half-open
			t := ticket{era: b.era.Load()}
			if t.era.state != HalfOpen {
				done(errIgnore) // closed meanwhile: counted by us
				return t, nil
			}
			t.probe = &probe{era: t.era, done: done, since: now}
			b.probes = append(b.probes, t.probe)
			return t, nil
		}
	}
	e = b.era.Load()
	err := b.rejection(e) // opened meanwhile
	if err == nil {       // every probe is out
		err = &OpenError{Name: b.cfg.Name, LastErr: e.cause}
	}
	if b.cfg.ObserveOnly {
		b.hooks.rejected(b.cfg.Name, err)
		return ticket{era: e}, nil
	}
	return ticket{}, err
}

// rejection is the error of an open breaker whose time has not passed, made without a lock.
func (b *Breaker) rejection(e *era) error {
	if e.state != Open || b.cfg.ObserveOnly {
		return nil
	}
	if e.forced {
		return &OpenError{Name: b.cfg.Name, LastErr: e.cause}
	}
	if left := time.Until(e.until); left > 0 {
		return &OpenError{Name: b.cfg.Name, LastErr: e.cause, RetryAfter: left}
	}
	return nil
}

// reclaim gives back the places of probes that have not ended. mu is held.
func (b *Breaker) reclaim(now time.Time) {
	for i := 0; i < len(b.probes); i++ {
		if p := b.probes[i]; b.cfg.ProbeTimeout > 0 && now.Sub(p.since) >= b.cfg.ProbeTimeout {
			b.settle(p, errIgnore)
			i--
		}
	}
}

// settle ends a probe, once and only in its era. mu is held.
func (b *Breaker) settle(p *probe, result error) {
	if p.settled || p.era != b.era.Load() {
		return
	}
	p.settled = true
	for i, q := range b.probes {
		if q == p {
			b.probes = append(b.probes[:i:i], b.probes[i+1:]...)
			break
		}
	}
	p.done(result)
}

// take takes a place in the bulkhead. It does not wait beyond end.
func (b *Breaker) take(ctx context.Context, end time.Time) error {
	select {
	case b.places <- struct{}{}:
		return nil
	default:
	}
	wait := b.cfg.BulkheadWait
	if !end.IsZero() {
		wait = min(wait, time.Until(end))
	}
	if wait <= 0 || b.cfg.ObserveOnly {
		return ErrFull
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case b.places <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrFull
	case <-ctx.Done():
		return ended(ctx)
	}
}

// release gives back what the ticket holds without a result.
func (b *Breaker) release(t *ticket) {
	if t.held {
		<-b.places
		t.held = false
	}
	if !t.sent.IsZero() {
		b.adapt.leave()
		t.sent = time.Time{}
	}
	if t.probe != nil {
		b.mu.Lock()
		b.settle(t.probe, errIgnore)
		b.mu.Unlock()
	}
}

// finish counts a call's result in the era that admitted it.
func (b *Breaker) finish(t *ticket, out Outcome, err error) {
	if t.held {
		<-b.places
		t.held = false
	}
	if !t.sent.IsZero() {
		b.adapt.done(out, err, time.Since(t.sent))
		t.sent = time.Time{}
	}
	var took time.Duration
	if !t.start.IsZero() {
		took = time.Since(t.start)
	}
	b.hooks.called(b.cfg.Name, out, err, took)
	e := t.era
	if t.probe != nil {
		b.finishProbe(t.probe, out, err)
		return
	}
	slow := b.cfg.SlowCall > 0 && took >= b.cfg.SlowCall
	switch out {
	case Success:
		e.success.Add(1)
		if e.inARow.Load() != 0 {
			e.inARow.Store(0)
		}
		if e.window != nil && e.window.add(slow, false) && b.exceeded(e.window) {
			b.trip(e, err)
		}
	case Failure:
		e.failure.Add(1)
		n := e.inARow.Add(1)
		over := b.cfg.Failures > 0 && n >= uint64(b.cfg.Failures)
		if e.window != nil && e.window.add(slow, true) && b.exceeded(e.window) {
			over = true
		}
		if over {
			b.trip(e, err)
		}
	case Ignore:
		e.ignored.Add(1)
	}
}

func (b *Breaker) finishProbe(p *probe, out Outcome, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.settled || p.era != b.era.Load() {
		return
	}
	switch out {
	case Success:
		p.era.success.Add(1)
		b.settle(p, nil)
	case Failure:
		p.era.failure.Add(1)
		p.era.inARow.Add(1)
		b.cause = err
		b.settle(p, errFailure)
	case Ignore:
		p.era.ignored.Add(1)
		b.settle(p, errIgnore)
	}
}

// exceeded says whether a rate over the window is too high.
func (b *Breaker) exceeded(w *window) bool {
	calls, failed, slow := w.sum()
	if calls < b.cfg.MinCalls {
		return false
	}
	return b.cfg.FailureRate > 0 && float64(failed) >= b.cfg.FailureRate*float64(calls) ||
		b.cfg.SlowRate > 0 && float64(slow) >= b.cfg.SlowRate*float64(calls)
}

// trip opens the breaker, if the era that the verdict was about is still the present one.
func (b *Breaker) trip(e *era, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.state != Closed || b.era.Load() != e {
		return
	}
	done, refused := b.machine.Allow()
	if refused != nil {
		return // the machine is not closed: it has had its verdict
	}
	b.tripped, b.cause = true, err
	done(errFailure)
	b.tripped = false
}
