package breaker_test

import (
	"context"
	"errors"
	"fmt"
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
	failures, probes     int
	openFor, probeWithin time.Duration

	state   breaker.State
	era     int
	counts  breaker.Counts
	until   time.Time
	forced  bool
	out     map[int]time.Time // probes, since when
	settled int               // probes of this half-open that succeeded
	changes []string
}

func change(from, to breaker.State, c breaker.Counts) string { return fmt.Sprint(from, to, c) }

func (m *model) enter(s breaker.State) {
	if s != m.state {
		m.changes = append(m.changes, change(m.state, s, m.counts))
	}
	m.state, m.era, m.counts, m.settled, m.forced = s, m.era+1, breaker.Counts{}, 0, false
	m.out = map[int]time.Time{}
	if s == breaker.Open {
		m.until = time.Now().Add(m.openFor)
	}
}

// admit says whether a call is let through, and as which probe.
func (m *model) admit(id int) (ok bool, probe int) {
	if m.state == breaker.Open && !m.forced && !time.Now().Before(m.until) {
		m.enter(breaker.HalfOpen)
	}
	switch m.state {
	case breaker.Closed:
		return true, 0
	case breaker.HalfOpen:
		for p, since := range m.out {
			if time.Since(since) >= m.probeWithin {
				delete(m.out, p)
			}
		}
		if len(m.out)+m.settled < m.probes {
			m.out[id] = time.Now()
			return true, id
		}
	}
	return false, 0
}

func (m *model) finish(f *flight, out breaker.Outcome) {
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

// flight is a call on a goroutine of its own, which ends as it is told.
type flight struct {
	era, probe int

	order  chan string
	cancel context.CancelFunc
	ran    bool
	err    error
	raised any
}

var errIgnored = errors.New("ignored")

// orders are the ways in which a call can end, and what each means. A call that gets no order hangs.
var orders = []struct {
	name string
	out  breaker.Outcome
}{
	{"fail", breaker.Failure}, {"fail", breaker.Failure}, {"succeed", breaker.Success}, {"ignore", breaker.Ignore},
	{"panic", breaker.Failure}, {"goexit", breaker.Ignore}, {"cancel", breaker.Ignore},
}

func launch(b *breaker.Breaker) *flight {
	f := &flight{order: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
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
	if order == "cancel" {
		f.cancel()
	} else {
		f.order <- order
	}
	synctest.Wait()
	f.cancel()
	wantErr := map[string]error{"fail": errDown, "ignore": errIgnored, "cancel": context.Canceled}[order]
	if f.err != wantErr || (f.raised == f) != (order == "panic") {
		return fmt.Sprintf("%s: the caller got %v, panic %v", order, f.err, f.raised)
	}
	return ""
}

// TestModel makes random calls that overlap, end late, in every way, or not at all, and compares every answer, count
// and change of state with the model's.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := breaker.Config{
			Failures: rapid.IntRange(1, 4).Draw(rt, "failures"), Probes: rapid.IntRange(1, 3).Draw(rt, "probes"),
			OpenFor: 10 * time.Second, MaxOpenFor: 10 * time.Second, ProbeTimeout: 15 * time.Second, Timeout: -1,
			Classify: func(ctx context.Context, err error) breaker.Outcome {
				if err == errIgnored {
					return breaker.Ignore
				}
				return breaker.DefaultClassify(ctx, err)
			},
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 699), 50, 300).Draw(rt, "steps")
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
	m := &model{failures: cfg.Failures, probes: cfg.Probes, openFor: cfg.OpenFor, probeWithin: cfg.ProbeTimeout}
	var flying []*flight
	defer func() {
		for _, f := range flying {
			f.cancel()
		}
	}()
	for id, s := range steps {
		did := "nothing"
		switch kind := s / 7; {
		case kind < 45:
			did = "call"
			f := launch(b)
			ok, probe := m.admit(id + 1)
			if ok != f.ran || ok != (f.err == nil) || !ok && !breaker.IsRejection(f.err) {
				return fmt.Sprintf("step %d: let through %v, %v; the model says %v", id, f.ran, f.err, ok)
			}
			if f.era, f.probe = m.era, probe; ok {
				flying = append(flying, f)
			} else {
				f.cancel()
			}
		case kind < 85 && len(flying) > 0:
			n := kind % len(flying)
			f := flying[n]
			flying = slices.Delete(flying, n, n+1)
			o := orders[s%7]
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
		}
		if b.State() != m.state || b.Counts() != m.counts {
			return fmt.Sprintf("step %d, %s: the breaker is %v %+v, the model %v %+v", id, did, b.State(), b.Counts(), m.state, m.counts)
		}
	}
	synctest.Wait()
	if !slices.Equal(changes, m.changes) {
		return fmt.Sprintf("told %v, the model %v", changes, m.changes)
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
