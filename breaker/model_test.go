package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sillar-go/sillar/breaker"
)

// model is what a breaker is to do, written as plainly as can be: one thread, no clock of its own.
type model struct {
	failures, probes, limit          int
	openFor, maxOpenFor, probeWithin time.Duration

	state   breaker.State
	era     int
	counts  breaker.Counts
	until   time.Time
	forced  bool
	out     map[int]time.Time // probes, since when
	settled int               // probes of this half-open that succeeded
	opened  int               // times in a row without closing
	flying  int               // calls at work, of every era
	changes []string
}

func change(from, to breaker.State, c breaker.Counts) string { return fmt.Sprint(from, to, c) }

func (m *model) enter(s breaker.State) {
	if s != m.state {
		m.changes = append(m.changes, change(m.state, s, m.counts))
	}
	m.state, m.era, m.counts, m.settled, m.forced = s, m.era+1, breaker.Counts{}, 0, false
	m.out = map[int]time.Time{}
	switch s {
	case breaker.Open:
		m.until = time.Time{} // at random: see openedFor
		m.opened++
	case breaker.Closed:
		m.opened = 0
	}
}

// openedFor takes the time for which the breaker has opened at random, and says whether it is within the bounds.
func (m *model) openedFor(d time.Duration) bool {
	m.until = time.Now().Add(d)
	least := m.openFor << (m.opened - 1)
	if least >= m.maxOpenFor {
		return d <= m.maxOpenFor && d >= m.maxOpenFor-(m.maxOpenFor-m.openFor)/10
	}
	most := least + least/10
	if m.opened == 1 {
		most = least
	}
	return d >= least && d <= min(most, m.maxOpenFor)
}

// admit says whether a call is let through, and as which probe.
func (m *model) admit(id int) (ok bool, probe int) {
	if m.state == breaker.Open && !m.forced && !time.Now().Before(m.until) {
		m.enter(breaker.HalfOpen)
	}
	full := m.flying >= m.limit
	switch m.state {
	case breaker.Closed:
		return !full, 0
	case breaker.HalfOpen:
		for p, since := range m.out {
			if time.Since(since) >= m.probeWithin {
				delete(m.out, p)
			}
		}
		if len(m.out)+m.settled < m.probes && !full {
			m.out[id] = time.Now()
			return true, id
		}
	}
	return false, 0
}

func (m *model) finish(f *flight, out breaker.Outcome) {
	m.flying--
	if f.era != m.era {
		return
	}
	if f.probe != 0 {
		if _, mine := m.out[f.probe]; !mine {
			return
		}
		delete(m.out, f.probe)
	}
	switch out {
	case breaker.Success:
		m.counts.Successes++
		m.counts.InARow = 0
		if f.probe != 0 {
			if m.settled++; m.settled == m.probes {
				m.enter(breaker.Closed)
			}
		}
	case breaker.Failure:
		m.counts.Failures++
		m.counts.InARow++
		if f.probe != 0 || int(m.counts.InARow) >= m.failures {
			m.enter(breaker.Open)
		}
	case breaker.Ignore:
		m.counts.Ignored++
	}
}

// flight is a call on a goroutine of its own, which ends when the test says so.
type flight struct {
	era, probe int

	order  chan string
	cancel context.CancelFunc
	ran    bool
	err    error
	raised any
}

var errIgnored, errStrange = errors.New("ignored"), errors.New("classified as no outcome")

// orders are the ways in which a call can end, and what each means. A call that gets no order hangs.
var orders = []struct {
	name string
	out  breaker.Outcome
}{
	{"fail", breaker.Failure}, {"fail", breaker.Failure}, {"succeed", breaker.Success}, {"ignore", breaker.Ignore},
	{"panic", breaker.Failure}, {"goexit", breaker.Ignore}, {"strange", breaker.Ignore},
	{"cancel", breaker.Ignore},
}

// launch starts a call, whose caller gives it so long; 0 is forever.
func launch(b *breaker.Breaker, within time.Duration) *flight {
	f := &flight{order: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	if within > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), within)
	}
	f.cancel = cancel
	go func() {
		defer func() { f.raised = recover() }()
		f.err = b.Run(ctx, func(ctx context.Context) error {
			f.ran = true
			select {
			case <-ctx.Done():
				return ctx.Err()
			case o := <-f.order:
				switch o {
				case "fail":
					return errDown
				case "ignore":
					return errIgnored
				case "strange":
					return errStrange
				case "panic":
					panic(f)
				case "goexit":
					runtime.Goexit()
				}
				return nil
			}
		})
	}()
	synctest.Wait()
	return f
}

// end ends the call, and says what was wrong with that.
func (f *flight) end(order string) string {
	switch order {
	case "cancel":
		f.cancel()
	case "wait":
	default:
		f.order <- order
	}
	synctest.Wait()
	f.cancel()
	wantErr := map[string]error{"fail": errDown, "ignore": errIgnored, "strange": errStrange, "cancel": context.Canceled,
		"wait": context.DeadlineExceeded}[order]
	if f.err != wantErr || (f.raised == f) != (order == "panic") {
		return fmt.Sprintf("%s: the caller got %v, panic %v", order, f.err, f.raised)
	}
	return ""
}

// TestBreakerAgreesWithModel makes random calls that overlap, end late, in every way, or not at all, and compares every
// answer, count and change of state with the model's.
func TestBreakerAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(2, 12).Draw(rt, "limit")
		cfg := breaker.Config{
			Failures: rapid.IntRange(1, 4).Draw(rt, "failures"), Probes: rapid.IntRange(1, 3).Draw(rt, "probes"),
			OpenFor: 10 * time.Second, MaxOpenFor: time.Duration(rapid.IntRange(10, 60).Draw(rt, "maxOpenFor")) * time.Second,
			ProbeTimeout: 15 * time.Second, Timeout: -1,
			Adaptive: breaker.AdaptiveLimit{Max: limit, Min: limit}, Logger: slog.New(slog.DiscardHandler),
			Classify: func(ctx context.Context, err error) breaker.Outcome {
				switch err {
				case errIgnored:
					return breaker.Ignore
				case errStrange:
					return 7
				}
				return breaker.DefaultClassify(ctx, err)
			},
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 799), 50, 300).Draw(rt, "steps")
		var wrong string
		synctest.Test(t, func(*testing.T) { wrong = follow(cfg, steps) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func follow(cfg breaker.Config, steps []int) string {
	var changes []string
	cfg.OnStateChange = func(c breaker.StateChange) { changes = append(changes, change(c.From, c.To, c.Counts)) }
	b := breaker.Must(breaker.New(cfg))
	m := &model{failures: cfg.Failures, probes: cfg.Probes, limit: cfg.Adaptive.Max,
		openFor: cfg.OpenFor, maxOpenFor: cfg.MaxOpenFor, probeWithin: cfg.ProbeTimeout}
	var flying []*flight
	defer func() {
		for _, f := range flying {
			f.cancel()
		}
	}()
	for id, s := range steps {
		did := "nothing"
		switch kind := s / 8; {
		case kind < 45:
			did = "call"
			f := launch(b, 0)
			ok, probe := m.admit(id + 1)
			if ok != f.ran || ok != (f.err == nil) || !ok && !breaker.IsRejection(f.err) {
				return fmt.Sprintf("step %d: let through %v, %v; the model says %v", id, f.ran, f.err, ok)
			}
			if f.era, f.probe = m.era, probe; ok {
				m.flying++
				flying = append(flying, f)
			} else {
				f.cancel()
			}
		case kind < 85 && len(flying) > 0:
			n := kind % len(flying)
			f := flying[n]
			flying = slices.Delete(flying, n, n+1)
			o := orders[s%8]
			did = o.name
			if wrong := f.end(o.name); wrong != "" {
				return wrong
			}
			m.finish(f, o.out)
		case kind < 95:
			did = "sleep"
			time.Sleep(time.Duration(s%3+1) * 5 * time.Second)
		case kind == 95:
			did = "open"
			b.Open()
			m.enter(breaker.Open)
			m.forced = true
		case kind == 96:
			did = "close"
			b.Close()
			m.enter(breaker.Closed)
		case kind == 97:
			did = "half-open"
			time.Sleep(2) // the clock of a test stands still, and the state machine below opens for 1 ns
			b.HalfOpen()
			if m.state == breaker.Open && !m.forced {
				m.until = time.Now()
			}
		case kind >= 98: // a caller whose deadline passes: a short one says nothing
			did, within, out := "hurry", 500*time.Millisecond, breaker.Ignore
			if kind == 99 {
				did, within, out = "patience", 2*time.Second, breaker.Failure
			}
			f := launch(b, within)
			ok, probe := m.admit(id + 1)
			if f.era, f.probe = m.era, probe; ok {
				m.flying++
				time.Sleep(within)
				if wrong := f.end("wait"); wrong != "" {
					return did + wrong
				}
				m.finish(f, out)
			} else if f.cancel(); f.ran || !breaker.IsRejection(f.err) {
				return fmt.Sprintf("step %d, %s: let through, %v", id, did, f.err)
			}
		}
		if m.state == breaker.Open && !m.forced && m.until.IsZero() && !m.openedFor(b.RetryAfter()) {
			return fmt.Sprintf("step %d, %s: opened for %s, the %d. time in a row", id, did, b.RetryAfter(), m.opened)
		}
		if limit, n := b.Limit(); limit != m.limit || n != m.flying {
			return fmt.Sprintf("step %d, %s: %d calls of %d, the model %d of %d", id, did, n, limit, m.flying, m.limit)
		}
		if b.State() != m.state || b.Counts() != m.counts {
			return fmt.Sprintf("step %d, %s: the breaker is %v %+v, the model %v %+v", id, did, b.State(), b.Counts(), m.state,
				m.counts)
		}
	}
	synctest.Wait()
	if !slices.Equal(changes, m.changes) {
		return fmt.Sprintf("reported %v, the model %v", changes, m.changes)
	}
	return ""
}

// A call is in the window for nine tenths of it at least, and never longer than the whole.
func TestWindowAgainstAList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pauses := rapid.SliceOfN(rapid.IntRange(0, 4000), 1, 200).Draw(rt, "pauses")
		var wrong string
		synctest.Test(t, func(*testing.T) {
			w := breaker.NewWindow(10 * time.Second)
			var at []time.Time
			for n, ms := range pauses {
				time.Sleep(time.Duration(ms) * time.Millisecond)
				w.Add(n%3 == 0, n%2 == 0)
				at = append(at, time.Now())
				least, most := 0, 0
				for _, a := range at {
					if d := time.Since(a); d <= 9*time.Second {
						least, most = least+1, most+1
					} else if d < 10*time.Second {
						most++
					}
				}
				if calls, failed, slow := w.Sum(); calls < least || calls > most || failed > calls || slow > calls {
					wrong = fmt.Sprintf("%d calls, want %d to %d; %d failed, %d slow", calls, least, most, failed, slow)
					return
				}
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}
