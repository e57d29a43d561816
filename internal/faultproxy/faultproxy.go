// Package faultproxy is a TCP proxy inside a test that breaks the connections that go through it.
//
//	p := faultproxy.New(t, "127.0.0.1:5672")
//	client := dial(p.Addr())
//	p.Cut() // every connection breaks
package faultproxy

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards connections to a target. Its methods may be called from any goroutine. It ends with the test.
type Proxy struct {
	target string
	ln     net.Listener
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	open   chan struct{} // closed while bytes flow
	paused bool
	refuse bool
	delay  time.Duration
	filter func(fromTarget bool) Filter
	total  int
	epoch  int // of Freeze
	closed bool
}

// New starts a proxy to target, a host and port.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("faultproxy: listen: %v", err)
	}
	p := &Proxy{target: target, ln: ln, conns: map[net.Conn]struct{}{}, open: make(chan struct{})}
	close(p.open)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr returns the host and port that clients dial.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Connections returns how many were accepted and forwarded since the start.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Cut closes every connection; new ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, as a crash makes it
		}
		_ = c.Close()
	}
}

// Pause makes a black hole: connections stay open and new ones are accepted, but no byte gets through.
func (p *Proxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.paused {
		p.paused, p.open = true, make(chan struct{})
	}
}

// Resume ends Pause: bytes that were held flow on.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused {
		p.paused = false
		close(p.open)
	}
}

// Freeze makes the connections that there are silent for good, without an end, as a NAT that has forgotten them does.
// New ones work.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch++
}

// Refuse makes new connections break at once.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Delay holds every piece of data for d.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Filter looks at each piece of data that comes through one direction of one connection, lets so many of its bytes
// pass, and says whether the connection is cut after them.
type Filter func(piece []byte) (pass int, cut bool)

// Filter makes filters for the connections that come: one for what clients send, and one for what the target does. A
// nil filter lets all pass.
func (p *Proxy) Filter(filterFor func(fromTarget bool) Filter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.filter = filterFor
}

func (p *Proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.forward(in) })
	}
}

// add registers a connection, unless the proxy is closed.
func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) remove(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) forward(in net.Conn) {
	defer p.remove(in)
	p.mu.Lock()
	refuse := p.refuse
	p.mu.Unlock()
	if refuse || !p.add(in) {
		return
	}
	out, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		return
	}
	defer p.remove(out)
	if !p.add(out) {
		return
	}
	p.mu.Lock()
	p.total++
	var asked, answered Filter
	epoch := p.epoch
	if p.filter != nil {
		asked, answered = p.filter(false), p.filter(true)
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(out, in, asked, epoch) })
	p.pump(in, out, answered, epoch)
	both.Wait()
}

// pump copies until an end; then it closes both ends.
func (p *Proxy) pump(to, from net.Conn, filter Filter, epoch int) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			open, delay := p.open, p.delay
			p.mu.Unlock()
			<-open
			if p.frozen(epoch) {
				n = 0
			}
			if delay > 0 {
				time.Sleep(delay)
			}
			if filter != nil {
				var cut bool
				if n, cut = filter(buf[:n]); cut {
					err = io.ErrClosedPipe
				}
			}
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = io.ErrClosedPipe
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) frozen(epoch int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch != epoch
}

func (p *Proxy) close() {
	_ = p.ln.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Resume()
	p.Cut()
	p.wg.Wait()
}
