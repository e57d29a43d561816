package breaker_test

import (
	"context"
	"errors"
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
	inARow  int
	until   time.Time
	forced  bool
	out     map[int]time.Time // probes, since when
	settled int               // probes of this half-open that succeeded
}

type flight struct {
	era, probe int // probe 0: none
	done       func(error)
}

func (m *model) enter(s breaker.State) {
	m.state, m.era, m.inARow, m.settled, m.forced = s, m.era+1, 0, 0, false
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

func (m *model) finish(f flight, out breaker.Outcome) {
	if f.era != m.era {
		return
	}
	if f.probe != 0 {
		if _, mine := m.out[f.probe]; !mine {
			return
		}
		delete(m.out, f.probe)
		switch out {
		case breaker.Failure:
			m.enter(breaker.Open)
		case breaker.Success:
			if m.settled++; m.settled == m.probes {
				m.enter(breaker.Closed)
			}
		}
		return
	}
	switch out {
	case breaker.Success:
		m.inARow = 0
	case breaker.Failure:
		if m.inARow++; m.inARow >= m.failures {
			m.enter(breaker.Open)
		}
	}
}

var errIgnored = errors.New("ignored")

// TestModel makes random calls that overlap, end late, or not at all, and compares every answer with the model's.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := breaker.Config{
			Failures: rapid.IntRange(1, 4).Draw(rt, "failures"), Probes: rapid.IntRange(1, 3).Draw(rt, "probes"),
			OpenFor: 10 * time.Second, ProbeTimeout: 15 * time.Second,
			Classify: func(_ context.Context, err error) breaker.Outcome {
				switch err {
				case nil:
					return breaker.Success
				case errIgnored:
					return breaker.Ignore
				}
				return breaker.Failure
			},
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 99), 50, 300).Draw(rt, "steps")
		var wrong string
		synctest.Test(t, func(t *testing.T) { wrong = follow(t.Context(), cfg, steps) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func follow(ctx context.Context, cfg breaker.Config, steps []int) (wrong string) {
	b := breaker.Must(breaker.New(cfg))
	m := &model{failures: cfg.Failures, probes: cfg.Probes, openFor: cfg.OpenFor, probeWithin: cfg.ProbeTimeout}
	var flying []flight
	for id, s := range steps {
		switch {
		case s < 45:
			done, err := b.Allow(ctx)
			ok, probe := m.admit(id + 1)
			if ok != (err == nil) {
				return "a call was let through, or not, against the model"
			}
			if ok {
				flying = append(flying, flight{m.era, probe, done})
			}
		case s < 85 && len(flying) > 0:
			n := s % len(flying)
			f := flying[n]
			flying = append(flying[:n:n], flying[n+1:]...)
			out := []breaker.Outcome{breaker.Failure, breaker.Failure, breaker.Success, breaker.Ignore}[s%4]
			f.done([]error{nil, errDown, errIgnored}[out])
			m.finish(f, out)
		case s < 95:
			time.Sleep(time.Duration(s%3+1) * 5 * time.Second)
		case s == 95:
			b.Open()
			m.enter(breaker.Open)
			m.forced = true
		case s == 96:
			b.Close()
			m.enter(breaker.Closed)
		}
		if b.State() != m.state {
			return "the breaker is " + b.State().String() + ", the model " + m.state.String()
		}
	}
	return ""
}
