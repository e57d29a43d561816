package gateway

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sillar-go/sillar/breaker"
)

// Balance says which instance gets a request.
type Balance string

const (
	// PowerOfTwo takes the instance with fewer requests in progress of two drawn at random. It is the default: nearly as
	// even as LeastRequests, and gateways that share instances do not all choose the same one.
	PowerOfTwo Balance = "power_of_two"
	// LeastRequests takes the instance with the fewest requests in progress.
	LeastRequests Balance = "least_requests"
	// RoundRobin takes the instances in turn.
	RoundRobin Balance = "round_robin"
)

// slowStartMin is the share of its weight with which an instance begins a slow start.
const slowStartMin = 0.1

// noInstance says that no instance may be tried.
type noInstance struct{ after time.Duration }

func (e *noInstance) Error() string { return "gateway: no instance may be tried" }

// rotation is the instances of a route, which a registry may replace.
type rotation struct {
	all []weighted
	// even: all have the same weight.
	even bool
	// priorities are those that instances have, in ascending order.
	priorities []int

	mu    sync.Mutex
	turns []float64 // of a weighted round robin, by index into all
}

func newRotation(all []weighted) *rotation {
	even := !slices.ContainsFunc(all, func(w weighted) bool { return w.weight != all[0].weight })
	var priorities []int
	for _, w := range all {
		priorities = append(priorities, w.priority)
	}
	slices.Sort(priorities)
	return &rotation{all: all, even: even, priorities: slices.Compact(priorities), turns: make([]float64, len(all))}
}

// pick chooses an instance whose breaker lets a call through. It prefers those that were not tried before, among these
// the healthy ones, and among these the lowest priority: when all are unhealthy, the health check may be wrong.
func (r *route) pick(ctx context.Context, tried []*instance) (*instance, func(error), error) {
	rot, err := r.inRotation(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, again := range []bool{false, true} {
		for _, unhealthy := range []bool{false, true} {
			for level, priority := range rot.priorities {
				fits := func(i weighted) bool {
					return i.priority == priority && i.unhealthy.Load() == unhealthy &&
						slices.Contains(tried, i.instance) == again
				}
				backups := level < len(rot.priorities)-1 // which are better than an open breaker
				if i, done, err := r.admitted(ctx, rot, fits, backups); i != nil || err != nil {
					return i, done, err
				}
			}
		}
	}
	after := time.Duration(-1)
	for _, i := range rot.all {
		if d := i.breaker.RetryAfter(); after < 0 || d < after {
			after = d
		}
	}
	return nil, nil, &noInstance{after}
}

// admitted chooses one of the instances that fit, and returns nil if no breaker of theirs lets a call through. With
// backups, breakers are followed even when more are open than may be ejected.
func (r *route) admitted(
	ctx context.Context,
	rot *rotation,
	fits func(weighted) bool,
	backups bool,
) (*instance, func(error), error) {
	var space [16]int
	fit := space[:0]
	for n, i := range rot.all {
		if fits(i) {
			fit = append(fit, n)
		}
	}
	for len(fit) > 0 {
		n := r.choose(rot, fit)
		i := rot.all[fit[n]].instance
		done, err := i.breaker.Allow(ctx)
		switch {
		case err == nil:
			return i, done, nil
		case !breaker.IsRejection(err):
			return nil, nil, err
		case !backups && r.panicking(rot):
			return i, unfollowed(i), nil
		}
		fit[n] = fit[len(fit)-1]
		fit = fit[:len(fit)-1]
	}
	return nil, nil, nil
}

// panicking reports whether more instances than may be ejected have a breaker that is not closed. Breakers are then
// ignored.
func (r *route) panicking(rot *rotation) bool {
	if r.MaxEjection >= 1 {
		return false
	}
	ejected := 0
	for _, i := range rot.all {
		if i.breaker.State() != breaker.Closed {
			ejected++
		}
	}
	return float64(ejected) > r.MaxEjection*float64(len(rot.all))
}

// unfollowed ends a call that the breaker of an instance did not admit. The result does not count, but a success lets
// the breaker probe at once.
func unfollowed(i *instance) func(error) {
	return func(err error) {
		if err == nil {
			i.breaker.HalfOpen()
		}
	}
}

// another reports whether there is an instance that was not tried and would take a call.
func (r *route) another(tried []*instance) bool {
	rot := r.rotation.Load()
	all := r.panicking(rot)
	return slices.ContainsFunc(rot.all, func(i weighted) bool {
		return !slices.Contains(tried, i.instance) && (all || i.breaker.RetryAfter() == 0)
	})
}

// choose returns the index into fit of the instance to ask.
func (r *route) choose(rot *rotation, fit []int) int {
	if len(fit) == 1 {
		return 0
	}
	if r.Weights != nil {
		return r.chooseOfUpstream(rot, fit)
	}
	return r.chooseAmong(rot, fit)
}

// chooseOfUpstream draws an upstream by Route.Weights, and then chooses among its instances.
func (r *route) chooseOfUpstream(rot *rotation, fit []int) int {
	total := 0
	for n := range r.Weights {
		if slices.ContainsFunc(fit, func(i int) bool { return rot.all[i].upstream == n }) {
			total += r.Weights[n]
		}
	}
	if total == 0 {
		return r.chooseAmong(rot, fit)
	}
	drawn := rand.IntN(total)
	for n := range r.Weights {
		of := make([]int, 0, len(fit))
		for _, i := range fit {
			if rot.all[i].upstream == n {
				of = append(of, i)
			}
		}
		if len(of) == 0 {
			continue
		}
		if drawn -= r.Weights[n]; drawn < 0 {
			return slices.Index(fit, of[r.chooseAmong(rot, of)])
		}
	}
	return 0
}

// chooseAmong balances by Route.Balance, and by the weights of instances where they differ.
func (r *route) chooseAmong(rot *rotation, fit []int) int {
	if len(fit) == 1 {
		return 0
	}
	if !rot.even || r.warming(rot) {
		return r.chooseWeighted(rot, fit)
	}
	switch r.Balance {
	case RoundRobin:
		return int(r.turn.Add(1) % uint64(len(fit)))
	case LeastRequests:
		return leastBusy(rot, fit)
	}
	a, b := rand.IntN(len(fit)), rand.IntN(len(fit)-1)
	if b >= a {
		b++
	}
	if rot.all[fit[b]].busy.Load() < rot.all[fit[a]].busy.Load() {
		return b
	}
	return a
}

// leastBusy returns the instance with the fewest requests in progress, and a random one when there are several.
func leastBusy(rot *rotation, fit []int) int {
	best, least, ties := 0, int64(math.MaxInt64), 0
	for n, i := range fit {
		switch busy := rot.all[i].busy.Load(); {
		case busy < least:
			best, least, ties = n, busy, 1
		case busy == least:
			if ties++; rand.IntN(ties) == 0 {
				best = n
			}
		}
	}
	return best
}

// warming reports whether an instance is in its slow start.
func (r *route) warming(rot *rotation) bool {
	if r.SlowStart <= 0 {
		return false
	}
	now := time.Now()
	return slices.ContainsFunc(rot.all, func(i weighted) bool { return now.Sub(i.joined) < r.SlowStart })
}

// share is the weight of an instance, which grows while it starts slowly.
func (r *route) share(i weighted, now time.Time) float64 {
	if age := now.Sub(i.joined); age < r.SlowStart {
		return i.weight * max(slowStartMin, float64(age)/float64(r.SlowStart))
	}
	return i.weight
}

// chooseWeighted takes instances by their shares: round robin smoothly in turn, the others at random, in inverse
// proportion to the requests in progress.
func (r *route) chooseWeighted(rot *rotation, fit []int) int {
	now := time.Now()
	if r.Balance == RoundRobin {
		return r.nextInTurn(rot, fit, now)
	}
	total := 0.0
	shares := make([]float64, len(fit))
	for n, i := range fit {
		w := rot.all[i]
		shares[n] = r.share(w, now) / float64(w.busy.Load()+1)
		total += shares[n]
	}
	drawn := rand.Float64() * total
	for n, s := range shares {
		if drawn -= s; drawn < 0 {
			return n
		}
	}
	return len(fit) - 1
}

// nextInTurn is a smooth weighted round robin: each instance earns its share in each turn, the one that has earned most
// is taken and pays the turn.
func (r *route) nextInTurn(rot *rotation, fit []int, now time.Time) int {
	rot.mu.Lock()
	defer rot.mu.Unlock()
	best, total := 0, 0.0
	for n, i := range fit {
		s := r.share(rot.all[i], now)
		total += s
		rot.turns[i] += s
		if rot.turns[i] > rot.turns[fit[best]] {
			best = n
		}
	}
	rot.turns[fit[best]] -= total
	return best
}
