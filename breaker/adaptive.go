package breaker

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// AdaptiveLimit bounds the calls at work at once by a limit that follows the latency of the service, where Bulkhead has
// a fixed one. It needs no knowledge of the capacity: while calls take as long as without load, the limit grows; when
// they take longer, they queue somewhere, and the limit shrinks. Calls above it are rejected with ErrOverloaded.
//
// The controller is a gradient, as in TCP Vegas and FAST TCP (Jin, Wei, Low: "FAST TCP: Motivation, Architecture,
// Algorithms, Performance", INFOCOM 2004), in the form of Envoy's adaptive concurrency filter and Netflix's
// concurrency-limits ("Performance Under Load", 2018). After each window of 50 successful calls and 100 ms at least:
//
//	gradient = 1.25 × unloaded latency / latency of the window, within [0.5, 1]
//	limit    = the mean of limit and gradient × limit + √limit
//
// A window with an attempt that timed out, or that the service refused because of load, multiplies the limit by 0.9
// instead; other failures say nothing about load and change nothing. A call that its caller ended early, by a short
// deadline, counts with the time that it took, where that is twice the unloaded latency at least. The limit does not
// grow while less than half of it is used. The unloaded latency is measured after a second and then about every 10 s,
// every 60 s where nothing queues: for two windows half of the calls are admitted.
type AdaptiveLimit struct {
	// Max is the largest limit. Default off: without it there is no adaptive limit.
	Max int
	// Min is the smallest limit. Default 1.
	Min int
	// Initial is the first limit. Default 20, within Min and Max.
	Initial int
}

func (c *AdaptiveLimit) setDefaults() {
	c.Min = cmp.Or(c.Min, 1)
	if c.Initial == 0 {
		c.Initial = max(c.Min, min(20, c.Max))
	}
}

// LimitChange is a change of an adaptive limit.
type LimitChange struct {
	// Name is the name of the breaker.
	Name string
	// From and To are the limits. From is 0 when the breaker is made.
	From, To int
}

const (
	adaptiveWindow    = 100 * time.Millisecond // the least duration of a window
	adaptiveSlow      = time.Second            // after which fewer samples suffice
	adaptiveSamples   = 50
	adaptiveFew       = 20
	adaptiveTolerance = 1.25             // how much longer than unloaded calls may take; latencies vary
	adaptiveBackoff   = 0.9              // after an overload
	adaptiveInterval  = 10 * time.Second // between measurements of the unloaded latency under load
	adaptiveIdle      = 6                // so many intervals where nothing queues
)

// measuring is where the measurement of the unloaded latency stands.
type measuring int

const (
	notMeasuring measuring = iota
	settling               // half of the limit is in force, calls from before end
	sampling               // half of the limit is in force, and all calls are of this time
)

// adaptive is the state of an AdaptiveLimit. Admission takes no lock.
type adaptive struct {
	cfg      AdaptiveLimit
	changed  func(from, to int)
	limit    atomic.Int64 // in force
	inFlight atomic.Int64

	mu            sync.Mutex
	estimate      float64       // the limit when not measuring
	unloaded      time.Duration // 0 before the first window
	unloadedKnown bool          // measured, not only seen
	recent        time.Duration // smoothed latency of the windows
	phase         measuring
	next          time.Time // of the next measurement
	idle          int       // intervals without a queue
	queued        bool      // a window since the last measurement was slow

	// The window.
	since    time.Time
	sum      time.Duration
	samples  int
	overload int
	peak     int64 // of inFlight
}

func newAdaptive(cfg AdaptiveLimit, changed func(from, to int)) *adaptive {
	now := time.Now()
	a := &adaptive{cfg: cfg, changed: changed, estimate: float64(cfg.Initial), since: now, next: now.Add(adaptiveSlow)}
	a.enforce(a.estimate)
	return a
}

// enter counts a call, and says whether it is within the limit. Every call that entered must leave.
func (a *adaptive) enter() bool { return a.inFlight.Add(1) <= a.limit.Load() }

func (a *adaptive) leave() { a.inFlight.Add(-1) }

// done is leave with the result of the call.
func (a *adaptive) done(out Outcome, err error, took time.Duration) {
	inFlight := a.inFlight.Add(-1) + 1
	late := out != Success && isOverload(err)
	if out != Success && !late {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if out == Ignore && (a.unloaded == 0 || took < 2*a.unloaded) { // a caller in a hurry
		return
	}
	a.peak = max(a.peak, inFlight)
	if out == Failure {
		a.overload++
	} else {
		a.samples++
		a.sum += took
	}
	now := time.Now()
	if a.complete(now.Sub(a.since)) {
		a.update(now)
	}
}

// complete says whether the window has lasted long enough to be judged: at least as long as a call, since a change of
// the limit shows only after that.
func (a *adaptive) complete(lasted time.Duration) bool {
	if lasted < max(adaptiveWindow, a.recent) {
		return false
	}
	return a.overload > 0 || a.samples >= adaptiveSamples || a.samples >= adaptiveFew && lasted >= adaptiveSlow
}

// update ends the window. mu is held.
func (a *adaptive) update(now time.Time) {
	lasted := now.Sub(a.since)
	peak, overload, samples := float64(a.peak), a.overload > 0, a.samples
	latency := a.sum / time.Duration(max(1, samples))
	a.since, a.sum, a.samples, a.overload, a.peak = now, 0, 0, 0, 0
	if overload {
		a.phase = notMeasuring
		a.schedule(now, lasted)
		a.queued = true
		a.estimate = max(float64(a.cfg.Min), a.estimate*adaptiveBackoff)
		a.enforce(a.estimate)
		return
	}
	latency = max(1, latency)
	if a.recent == 0 {
		a.unloaded, a.recent = latency, latency
	}
	a.recent += (latency - a.recent) / 5
	switch { // it became faster; where the difference is small, a single window may be chance
	case latency < a.unloaded/2:
		a.unloaded, a.recent = latency, latency
	case float64(a.recent)*1.1 < float64(a.unloaded):
		a.unloaded = a.recent
	}
	switch a.phase {
	case settling:
		a.phase = sampling
		return
	case sampling:
		a.phase, a.unloaded, a.recent = notMeasuring, latency, latency
		a.queued, a.idle = false, 0
		a.schedule(now, lasted)
		a.enforce(a.estimate)
		return
	case notMeasuring:
	}
	gradient := max(0.5, min(1, adaptiveTolerance*float64(a.unloaded)/float64(latency)))
	a.queued = a.queued || gradient < 1
	target := gradient*a.estimate + math.Sqrt(a.estimate)
	if target < a.estimate || peak >= a.estimate/2 {
		a.estimate = max(float64(a.cfg.Min), min((a.estimate+target)/2, float64(a.cfg.Max)))
	}
	if now.Before(a.next) {
		a.enforce(a.estimate)
		return
	}
	if a.idle++; !a.queued && a.unloadedKnown && a.idle < adaptiveIdle { // a measurement costs calls
		a.schedule(now, lasted)
		a.enforce(a.estimate)
		return
	}
	a.phase, a.unloadedKnown = settling, true
	a.enforce(max(float64(a.cfg.Min), min(a.estimate, peak)/2))
}

// schedule sets the time of the next measurement: at random, so that the instances of a fleet do not measure in step,
// and later where windows are long, so that most of the time the whole limit is in force.
func (a *adaptive) schedule(now time.Time, lasted time.Duration) {
	pause := max(adaptiveInterval, 20*lasted)
	a.next = now.Add(pause + time.Duration(rand.Int64N(int64(pause/10))))
}

// enforce puts a limit in force. mu is held, or a is new.
func (a *adaptive) enforce(limit float64) {
	to := int64(limit)
	if from := a.limit.Swap(to); from != to {
		a.changed(int(from), int(to))
	}
}

// isOverload says whether a failure is a sign of load: the attempt took too long, or the service said so. Errors of
// adapters declare it, such as that of HTTP's status 429.
func isOverload(err error) bool {
	var o interface{ Overload() bool }
	if errors.As(err, &o) {
		return o.Overload()
	}
	return errors.Is(err, context.DeadlineExceeded)
}
