package simulation_test

import (
	"io"
	"os"
	"sync"
	"time"
)

// pipe carries bytes one way.
type pipe struct {
	net   *network
	route string

	mu            sync.Mutex
	changed       *sync.Cond
	sent          []packet
	size          int
	last          time.Time // when the last packet arrives
	reads, writes limit
	readErr       error // once all that arrived has been read
	writeErr      error
}

type packet struct {
	data    []byte
	arrives time.Time
}

type limit struct {
	passed bool
	timer  *time.Timer
}

// maxPipe is how many bytes are on their way before a writer waits.
const maxPipe = 256 << 10

func newPipe(n *network, route string) *pipe {
	p := &pipe{net: n, route: route}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.reads.passed {
			return 0, failed("read", p.route, os.ErrDeadlineExceeded)
		}
		if len(p.sent) > 0 {
			first := &p.sent[0]
			if wait := time.Until(first.arrives); wait > 0 {
				wake := time.AfterFunc(wait, p.wake)
				p.changed.Wait()
				wake.Stop()
				continue
			}
			n := copy(b, first.data)
			if first.data = first.data[n:]; len(first.data) == 0 {
				p.sent = p.sent[1:]
			}
			p.size -= n
			p.changed.Broadcast()
			return n, nil
		}
		if p.readErr == io.EOF {
			return 0, io.EOF
		}
		if p.readErr != nil {
			return 0, failed("read", p.route, p.readErr)
		}
		p.changed.Wait()
	}
}

func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Broadcast()
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.writeErr != nil:
			return 0, failed("write", p.route, p.writeErr)
		case p.writes.passed:
			return 0, failed("write", p.route, os.ErrDeadlineExceeded)
		case p.size < maxPipe:
			arrives := time.Now().Add(p.net.latency(p.route))
			if arrives.Before(p.last) {
				arrives = p.last
			}
			p.last = arrives
			p.sent = append(p.sent, packet{append([]byte(nil), b...), arrives})
			p.size += len(b)
			p.changed.Broadcast()
			return len(b), nil
		}
		p.changed.Wait()
	}
}

// end lets the reader read what was sent, and then gives it readErr.
func (p *pipe) end(readErr, writeErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readErr == nil {
		p.readErr = readErr
	}
	if p.writeErr == nil {
		p.writeErr = writeErr
	}
	p.changed.Broadcast()
}

// abort drops what is on its way.
func (p *pipe) abort(writeErr, readErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent, p.size = nil, 0
	p.readErr, p.writeErr = readErr, writeErr
	p.changed.Broadcast()
}

func (p *pipe) deadline(l *limit, t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.passed = false
	switch wait := time.Until(t); {
	case t.IsZero():
	case wait <= 0:
		l.passed = true
	default:
		var timer *time.Timer
		timer = time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if l.timer == timer {
				l.passed = true
				p.changed.Broadcast()
			}
		})
		l.timer = timer
	}
	p.changed.Broadcast()
	return nil
}
