package breaker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is the state of a breaker.
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
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	case Open:
		return "open"
	}
	return fmt.Sprintf("state(%d)", int(s))
}

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
	limit  *limiter
	places chan struct{}
	budget budget
	adapt  *adaptive // nil when off

	// era is written under mu and read everywhere: a call through a closed breaker, and a rejection by an open one,
	// take no lock.
	era atomic.Pointer[era]

	mu      sync.Mutex // guards what follows, and every call of machine
	machine *gobreaker.TwoStepCircuitBreaker[struct{}]
	tripped bool  // the verdict that ReadyToTrip returns
	cause   error // the failure that makes the machine open
	probes  []*probe
	opened  int // times in a row that it opened without closing
}

// era is a stretch of time in one state. What a call brings back is counted in the era that admitted it, so it cannot
// touch a later one.
type era struct {
	state  State
	until  time.Time // when open: until when
	forced bool      // opened by hand
	cause  error     // the failure that opened the breaker
	window *window   // nil when no rate is asked for

	inARow, success, failure, ignored atomic.Uint64
}

func (e *era) counts() Counts {
	return Counts{e.success.Load(), e.failure.Load(), e.ignored.Load(), e.inARow.Load()}
}

// probe is a call that half-open admitted.
type probe struct {
	era     *era
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
	if cfg.Rate > 0 {
		b.limit = newLimiter(cfg.Rate, cfg.Burst)
	}
	if cfg.Bulkhead > 0 {
		b.places = make(chan struct{}, cfg.Bulkhead)
	}
	if cfg.Adaptive.Max > 0 {
		b.adapt = newAdaptive(cfg.Adaptive, func(from, to int) { b.hooks.limitChanged(cfg.Name, from, to) })
	}
	b.machine = b.newMachine()
	b.era.Store(b.newEra(Closed))
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
		Timeout:     1, // the time of an open era, which grows, is ours: see rejection
		ReadyToTrip: func(gobreaker.Counts) bool { return b.tripped },
		IsExcluded: func(err error) bool {
			return err == errIgnore //nolint:errorlint // it is never wrapped, and this is the hot path
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			switch to {
			case gobreaker.StateClosed:
				b.enter(b.newEra(Closed))
			case gobreaker.StateHalfOpen:
				e := b.newEra(HalfOpen)
				e.cause = b.era.Load().cause
				b.enter(e)
			case gobreaker.StateOpen:
				e := b.newEra(Open)
				e.cause = b.cause
				b.enter(e)
			}
		},
	})
}

func (b *Breaker) newEra(s State) *era {
	e := &era{state: s}
	switch s {
	case Open:
		e.until = time.Now().Add(b.openFor())
		b.opened++
	case Closed:
		b.opened = 0
	}
	if s == Closed && (b.cfg.FailureRate > 0 || b.cfg.SlowRate > 0) {
		e.window = newWindow(b.cfg.Window)
	}
	return e
}

// openFor returns how long the breaker opens now: OpenFor the first time, then doubled for each time in a row, with a
// tenth at most at random.
func (b *Breaker) openFor() time.Duration {
	if b.opened == 0 {
		return b.cfg.OpenFor
	}
	d := b.cfg.OpenFor
	for range b.opened {
		if d > b.cfg.MaxOpenFor/2 {
			return b.cfg.MaxOpenFor - time.Duration(rand.Int64N(int64((b.cfg.MaxOpenFor-b.cfg.OpenFor)/10)+1))
		}
		d *= 2
	}
	return min(d+time.Duration(rand.Int64N(int64(d/10)+1)), b.cfg.MaxOpenFor)
}

// enter makes e the present era. mu is held.
func (b *Breaker) enter(e *era) {
	old := b.era.Swap(e)
	b.probes = nil
	if old.state == e.state {
		return
	}
	c := StateChange{Name: b.cfg.Name, From: old.state, To: e.state, Counts: old.counts(), At: time.Now()}
	if e.state == Open {
		c.Err = e.cause
	}
	b.hooks.stateChanged(c)
}

// Name returns Config.Name.
func (b *Breaker) Name() string { return b.cfg.Name }

// State returns the state. An open breaker whose time has passed says Open until a call probes.
func (b *Breaker) State() State { return b.era.Load().state }

// Counts returns the calls since the last change of state.
func (b *Breaker) Counts() Counts { return b.era.Load().counts() }

// Limit returns the limit of Config.Adaptive that is in force, 0 without one, and how many calls are at work within it.
func (b *Breaker) Limit() (limit, inFlight int) {
	if b.adapt == nil {
		return 0, 0
	}
	return int(b.adapt.limit.Load()), int(b.adapt.inFlight.Load())
}

// RetryAfter returns how long an open breaker goes on rejecting; 0 when it would admit a call, or was opened by hand.
func (b *Breaker) RetryAfter() time.Duration {
	if e := b.era.Load(); e.state == Open && !e.forced {
		return max(0, time.Until(e.until))
	}
	return 0
}

// Open opens the breaker by hand, until Close: for maintenance, or to shed load.
func (b *Breaker) Open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.newEra(Open)
	e.forced = true
	b.enter(e)
}

// HalfOpen lets an open breaker probe at once, as when its time has passed: for programs that know, from a health
// check, that the service has returned. It does nothing in other states, and when the breaker was opened manually.
func (b *Breaker) HalfOpen() {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.era.Load()
	if e.state != Open || e.forced {
		return
	}
	due := &era{state: Open, until: time.Now(), cause: e.cause}
	due.inARow.Store(e.inARow.Load())
	due.success.Store(e.success.Load())
	due.failure.Store(e.failure.Load())
	due.ignored.Store(e.ignored.Load())
	b.era.Store(due)
}

// Close closes the breaker by hand and forgets what it counted.
func (b *Breaker) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.machine = b.newMachine()
	b.enter(b.newEra(Closed))
}

// quiet says whether nothing is lost when the breaker is forgotten.
func (b *Breaker) quiet() bool {
	e := b.era.Load()
	if e.state != Closed || e.inARow.Load() != 0 {
		return false
	}
	if e.window != nil {
		_, failed, slow := e.window.sum()
		return failed == 0 && slow == 0
	}
	return true
}
