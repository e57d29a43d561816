package breaker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is a breaker's.
type State int

// The states.
const (
	// Closed lets calls through.
	Closed State = iota
	// HalfOpen lets probes through.
	HalfOpen
	// Open rejects.
	Open
)

// String returns "closed", "half-open" or "open".
func (s State) String() string { return [...]string{"closed", "half-open", "open"}[s] }

// Counts are the calls since the last change of state.
type Counts struct {
	Successes, Failures, Ignored uint64
	// InARow is how many failures have followed the last success.
	InARow uint64
}

// Breaker guards calls. It is safe for concurrent use.
type Breaker struct {
	cfg    Config
	hooks  *hooks
	window *window // nil when no rate is asked for
	limit  *limiter
	places chan struct{}
	budget budget

	// phase is epoch<<2 | State. The epoch grows with every change of state; a call's result counts only in the epoch
	// that admitted it. It is written under mu and read everywhere.
	phase   atomic.Uint64
	until   atomic.Int64 // when open: until when, in nanoseconds since 1970
	inARow  atomic.Uint64
	success atomic.Uint64
	failure atomic.Uint64
	ignored atomic.Uint64

	mu      sync.Mutex // guards what follows, and every call of machine
	machine *gobreaker.TwoStepCircuitBreaker[struct{}]
	tripped bool // the verdict that ReadyToTrip returns
	forced  bool // opened by hand
	lastErr error
	probes  []*probe
}

// probe is a call that half-open admitted.
type probe struct {
	done    func(error)
	since   time.Time
	settled bool
}

var (
	errFailure = errors.New("failure")
	errIgnore  = errors.New("ignore")
)

// New returns a closed breaker, or an error when the Config makes no sense.
func New(cfg Config) (*Breaker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Breaker{cfg: cfg, hooks: newHooks(cfg), budget: newBudget(cfg.Retry.Budget)}
	if cfg.FailureRate > 0 || cfg.SlowRate > 0 {
		b.window = newWindow(cfg.Window)
	}
	if cfg.Rate > 0 {
		b.limit = newLimiter(cfg.Rate, cfg.Burst)
	}
	if cfg.Bulkhead > 0 {
		b.places = make(chan struct{}, cfg.Bulkhead)
	}
	b.machine = b.newMachine()
	return b, nil
}

// Must returns b or panics with err.
func Must(b *Breaker, err error) *Breaker {
	if err != nil {
		panic(err)
	}
	return b
}

// newMachine makes a closed state machine. Its own counting is not used while closed: results outside its generations
// would be dropped, so a dependency slower than the interval would never trip it.
func (b *Breaker) newMachine() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        b.cfg.Name,
		MaxRequests: uint32(min(b.cfg.Probes, 1<<30)),
		Timeout:     b.cfg.OpenFor,
		ReadyToTrip: func(gobreaker.Counts) bool { return b.tripped },
		IsExcluded:  func(err error) bool { return err == errIgnore },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			switch to {
			case gobreaker.StateClosed:
				b.enter(Closed)
			case gobreaker.StateHalfOpen:
				b.enter(HalfOpen)
			case gobreaker.StateOpen:
				b.enter(Open)
			}
		},
	})
}

// enter moves the mirror of the machine's state. mu is held.
func (b *Breaker) enter(to State) {
	from := State(b.phase.Load() & 3)
	before := b.Counts()
	if to == Open {
		b.until.Store(time.Now().Add(b.cfg.OpenFor).UnixNano())
	}
	b.phase.Store(b.phase.Load()>>2<<2 + 4 | uint64(to))
	b.inARow.Store(0)
	b.success.Store(0)
	b.failure.Store(0)
	b.ignored.Store(0)
	b.probes = nil
	if b.window != nil {
		b.window.reset()
	}
	if from != to {
		b.hooks.stateChanged(StateChange{Name: b.cfg.Name, From: from, To: to, Counts: before, Err: b.lastErr, At: time.Now()})
	}
}

// Name returns Config.Name.
func (b *Breaker) Name() string { return b.cfg.Name }

// State returns the state. An open breaker whose time has passed says Open until a call probes.
func (b *Breaker) State() State { return State(b.phase.Load() & 3) }

// Counts returns the calls since the last change of state.
func (b *Breaker) Counts() Counts {
	return Counts{b.success.Load(), b.failure.Load(), b.ignored.Load(), b.inARow.Load()}
}

// Open opens the breaker by hand, until Close: for maintenance, or to shed load.
func (b *Breaker) Open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forced, b.lastErr = true, nil
	if b.State() != Open {
		b.enter(Open)
	}
}

// Close closes the breaker by hand and forgets what it counted.
func (b *Breaker) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forced, b.lastErr = false, nil
	b.machine = b.newMachine()
	b.enter(Closed)
}

// ticket is an admitted call.
type ticket struct {
	phase uint64
	start time.Time
	probe *probe
	held  bool // a place in the bulkhead
}

// admit decides about a call. The path through a closed breaker reads one word of memory.
func (b *Breaker) admit(ctx context.Context) (t ticket, err error) {
	if err := ctx.Err(); err != nil {
		return t, context.Cause(ctx)
	}
	t.phase = b.phase.Load()
	if State(t.phase&3) != Closed {
		if t, err = b.admitNotClosed(); err != nil {
			b.hooks.rejected(b.cfg.Name, err)
			return t, err
		}
	}
	if b.timed() {
		t.start = time.Now()
	}
	if b.limit != nil && !b.limit.allow() {
		err = ErrLimited
	} else if b.places != nil {
		err = b.take(ctx)
		t.held = err == nil
	}
	if err != nil {
		b.release(&t)
		if Rejected(err) && b.cfg.ObserveOnly {
			return t, nil
		}
		b.hooks.rejected(b.cfg.Name, err)
		return t, err
	}
	return t, nil
}

// timed says whether somebody wants to know how long calls take.
func (b *Breaker) timed() bool { return b.cfg.SlowRate > 0 || b.cfg.OnCall != nil }

func (b *Breaker) admitNotClosed() (ticket, error) {
	now := time.Now()
	left := time.Duration(b.until.Load() - now.UnixNano())
	if b.cfg.ObserveOnly {
		left = 0
	}
	if b.State() == Open && left > 0 { // the common rejection takes no lock but the one around lastErr
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.State() == Open {
			return ticket{}, &OpenError{Name: b.cfg.Name, RetryAfter: left, LastErr: b.lastErr}
		}
	} else {
		b.mu.Lock()
		defer b.mu.Unlock()
	}
	if b.forced {
		if b.cfg.ObserveOnly {
			return ticket{phase: b.phase.Load()}, nil
		}
		return ticket{}, &OpenError{Name: b.cfg.Name}
	}
	b.reclaim(now)
	done, err := b.machine.Allow() // may move open to half-open
	if err != nil {
		if b.cfg.ObserveOnly {
			return ticket{phase: b.phase.Load()}, nil
		}
		return ticket{}, &OpenError{Name: b.cfg.Name, RetryAfter: max(0, time.Duration(b.until.Load()-now.UnixNano())), LastErr: b.lastErr}
	}
	t := ticket{phase: b.phase.Load()}
	if State(t.phase&3) == HalfOpen {
		t.probe = &probe{done: done, since: now}
		b.probes = append(b.probes, t.probe)
	} else {
		done(errIgnore) // closed meanwhile: counted by us
	}
	return t, nil
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

// settle ends a probe once. mu is held.
func (b *Breaker) settle(p *probe, result error) {
	if p.settled {
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

// take takes a place in the bulkhead.
func (b *Breaker) take(ctx context.Context) error {
	select {
	case b.places <- struct{}{}:
		return nil
	default:
	}
	if b.cfg.BulkheadWait <= 0 {
		return ErrFull
	}
	timer := time.NewTimer(b.cfg.BulkheadWait)
	defer timer.Stop()
	select {
	case b.places <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrFull
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// release gives back what the ticket holds without a result.
func (b *Breaker) release(t *ticket) {
	if t.held {
		<-b.places
		t.held = false
	}
	if t.probe != nil {
		b.mu.Lock()
		b.settle(t.probe, errIgnore)
		b.mu.Unlock()
	}
}

// finish counts a call's result, if the state that admitted it is still the present one.
func (b *Breaker) finish(t *ticket, out Outcome, err error) {
	if t.held {
		<-b.places
		t.held = false
	}
	var took time.Duration
	if !t.start.IsZero() {
		took = time.Since(t.start)
	}
	b.hooks.called(b.cfg.Name, out, err, took)
	if t.probe != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch out {
		case Success:
			b.success.Add(1)
			b.settle(t.probe, nil)
		case Failure:
			b.failure.Add(1)
			if !t.probe.settled {
				b.lastErr = err
			}
			b.settle(t.probe, errFailure)
		case Ignore:
			b.ignored.Add(1)
			b.settle(t.probe, errIgnore)
		}
		return
	}
	if b.phase.Load() != t.phase || State(t.phase&3) != Closed {
		return
	}
	switch out {
	case Success:
		b.success.Add(1)
		if b.inARow.Load() != 0 {
			b.inARow.Store(0)
		}
		if b.window != nil && b.window.add(took >= b.cfg.SlowCall, false) && b.exceeded() {
			b.trip(t.phase, err)
		}
	case Failure:
		b.failure.Add(1)
		n := b.inARow.Add(1)
		over := b.cfg.Failures > 0 && n >= uint64(b.cfg.Failures)
		if b.window != nil && b.window.add(took >= b.cfg.SlowCall, true) && b.exceeded() {
			over = true
		}
		if over {
			b.trip(t.phase, err)
		}
	case Ignore:
		b.ignored.Add(1)
	}
}

// exceeded says whether a rate over the window is too high.
func (b *Breaker) exceeded() bool {
	calls, failed, slow := b.window.sum()
	if calls < b.cfg.MinCalls {
		return false
	}
	return b.cfg.FailureRate > 0 && float64(failed) >= b.cfg.FailureRate*float64(calls) ||
		b.cfg.SlowRate > 0 && float64(slow) >= b.cfg.SlowRate*float64(calls)
}

// trip opens the breaker, if it is still in the phase that the verdict was about.
func (b *Breaker) trip(phase uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase.Load() != phase {
		return
	}
	b.lastErr = err
	done, aerr := b.machine.Allow()
	if aerr != nil {
		return // the machine is not closed: it has had its verdict
	}
	b.tripped = true
	done(errFailure)
	b.tripped = false
}
