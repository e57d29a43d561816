package simulation_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/sillar-go/sillar/internal/faultdraw"
)

// network is a network in memory. Goroutines that wait for it are durably blocked, so that virtual time passes. Bytes
// travel for a time that is drawn.
type network struct {
	draw      *faultdraw.Draw
	mu        sync.Mutex
	listeners map[string]*listener
}

func newNetwork(draw *faultdraw.Draw) *network {
	return &network{draw: draw, listeners: map[string]*listener{}}
}

// maxLatency is how long bytes travel at most.
const maxLatency = 10 * time.Millisecond

// latency draws how long bytes travel; most are fast.
func (n *network) latency(route string) time.Duration {
	p := n.draw.Part("latency " + route)
	return time.Duration(p * p * float64(maxLatency))
}

// host is a process on the network. It implements platform.Network.
type host struct {
	net  *network
	name string

	mu        sync.Mutex
	down      bool
	conns     map[*conn]struct{}
	listeners []*listener
}

func (n *network) host(name string) *host {
	return &host{net: n, name: name, conns: map[*conn]struct{}{}}
}

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

func failed(op, to string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: addr(to), Err: err}
}

// Listen implements platform.Network.
func (h *host) Listen(at string) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return nil, failed("listen", at, syscall.ENETDOWN)
	}
	l := &listener{host: h, at: at, backlog: make(chan *conn, 64), closed: make(chan struct{})}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.net.listeners[at] != nil {
		return nil, failed("listen", at, syscall.EADDRINUSE)
	}
	h.net.listeners[at] = l
	h.listeners = append(h.listeners, l)
	return l, nil
}

// DialContext implements platform.Network.
func (h *host) DialContext(ctx context.Context, _, to string) (net.Conn, error) {
	if err := sleep(ctx, h.net.latency("dial "+h.name+" "+to)); err != nil {
		return nil, failed("dial", to, err)
	}
	h.net.mu.Lock()
	l := h.net.listeners[to]
	h.net.mu.Unlock()
	if l == nil {
		return nil, failed("dial", to, syscall.ECONNREFUSED)
	}
	there, back := newPipe(h.net, h.name+" "+to), newPipe(h.net, to+" "+h.name)
	client := &conn{host: h, in: back, out: there, local: addr(h.name + ":0"), remote: addr(to)}
	server := &conn{host: l.host, in: there, out: back, local: addr(to), remote: addr(h.name + ":0")}
	if !h.add(client) || !l.host.add(server) {
		client.reset()
		return nil, failed("dial", to, syscall.ECONNREFUSED)
	}
	select {
	case l.backlog <- server:
		return client, nil
	default:
		client.reset()
		return nil, failed("dial", to, syscall.ECONNREFUSED)
	}
}

func (h *host) add(c *conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.down {
		h.conns[c] = struct{}{}
	}
	return !h.down
}

// crash ends all connections of the host, without what was on its way.
func (h *host) crash() {
	h.mu.Lock()
	h.down = true
	conns, listeners := h.conns, h.listeners
	h.conns, h.listeners = map[*conn]struct{}{}, nil
	h.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for c := range conns {
		c.reset()
	}
}

type listener struct {
	host    *host
	at      string
	backlog chan *conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, failed("accept", l.at, net.ErrClosed)
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.host.net.mu.Lock()
		delete(l.host.net.listeners, l.at)
		l.host.net.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.backlog:
				c.reset()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.at) }

// conn is one end of a connection.
type conn struct {
	host          *host
	in, out       *pipe
	local, remote addr
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

func (c *conn) Close() error {
	c.host.mu.Lock()
	delete(c.host.conns, c)
	c.host.mu.Unlock()
	c.out.end(io.EOF, net.ErrClosed)
	c.in.abort(syscall.EPIPE, net.ErrClosed)
	return nil
}

func (c *conn) reset() {
	c.out.abort(syscall.ECONNRESET, syscall.ECONNRESET)
	c.in.abort(syscall.ECONNRESET, syscall.ECONNRESET)
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.deadline(&c.in.reads, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.deadline(&c.out.writes, t) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
