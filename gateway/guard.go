package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// handshakeTimeout bounds TLS handshakes.
const handshakeTimeout = 10 * time.Second

// Guard returns a listener whose connections refuse what net/http would repair: a request with both Content-Length and
// Transfer-Encoding, with either of them twice, with Transfer-Encoding in HTTP/1.0, or with folded header lines gets
// 400, and a body whose chunks are malformed ends the connection. A service behind a proxy that repairs them
// differently would take a part of such a request for another request. HTTP/2 and what follows an upgrade pass unseen.
//
// Server's methods use it, and report what is refused; it is for programs that have an http.Server of their own. When
// connections of l are *tls.Conn, Guard does their handshakes, so l must come from tls.NewListener, with "h2" and
// "http/1.1" as NextProtos where HTTP/2 is wanted. To be handed such connections, the server must serve HTTP/2 (the
// default).
func Guard(l net.Listener) net.Listener { return newGuard(l, nil) }

func newGuard(l net.Listener, log *rejectionLog) *guard {
	ctx, cancel := context.WithCancel(context.Background())
	return &guard{Listener: l, log: log, ready: make(chan accepted), ctx: ctx, cancel: cancel}
}

// guard accepts for the server and does handshakes meanwhile: only they tell which protocol is spoken.
type guard struct {
	net.Listener
	log    *rejectionLog
	begin  sync.Once
	ready  chan accepted
	ctx    context.Context //nolint:containedctx // it ends what Close ends
	cancel context.CancelFunc
}

type accepted struct {
	conn net.Conn
	err  error
}

// Accept implements net.Listener.
func (g *guard) Accept() (net.Conn, error) {
	g.begin.Do(func() { go g.run() })
	select {
	case a := <-g.ready:
		return a.conn, a.err
	case <-g.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *guard) Close() error {
	g.cancel()
	return g.Listener.Close()
}

func (g *guard) run() {
	for g.ctx.Err() == nil {
		c, err := g.Listener.Accept()
		if t, ok := c.(*tls.Conn); ok && err == nil {
			go g.handshake(t)
			continue
		}
		if err == nil {
			c = &guarded{Conn: c, log: g.log}
		}
		if !g.hand(accepted{c, err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (g *guard) hand(a accepted) bool {
	select {
	case g.ready <- a:
		return true
	case <-g.ctx.Done():
		if a.conn != nil {
			_ = a.conn.Close()
		}
		return false
	}
}

// handshake does a handshake. A failure is not logged: strangers send anything.
func (g *guard) handshake(c *tls.Conn) {
	ctx, cancel := context.WithTimeout(g.ctx, handshakeTimeout)
	err := c.HandshakeContext(ctx)
	cancel()
	if err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) && plain.Conn != nil {
			_ = plain.Conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis port speaks TLS.\n")
		}
		_ = c.Close()
		return
	}
	if c.ConnectionState().NegotiatedProtocol == "h2" {
		g.hand(accepted{conn: c})
		return
	}
	g.hand(accepted{conn: &guardedTLS{guarded{Conn: c, log: g.log}, c}})
}

var errFraming = errors.New("gateway: the body's chunks are malformed")

// nonsense replaces what follows a malformed chunk. net/http cannot parse it, and the handler gets that error. If Read
// failed instead, net/http would take the client for disconnected.
const nonsense = "\x00\n\r\n\r\n"

// guarded is a connection that a scanner looks at.
type guarded struct {
	net.Conn
	log      *rejectionLog // nil: rejections are not logged
	scan     scanner
	nonsense string
	upgrade  atomic.Bool // another protocol is asked for
	connect  atomic.Bool // a tunnel is
	raw      atomic.Bool // it is granted
}

// guardedTLS shows the handshake to net/http.
type guardedTLS struct {
	guarded
	tls *tls.Conn
}

// ConnectionState is what net/http puts into a request's TLS.
func (c *guardedTLS) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// Read implements net.Conn. net/http never reads twice at a time.
func (c *guarded) Read(p []byte) (int, error) {
	if c.scan.state == scanBroken {
		n := copy(p, c.nonsense)
		if c.nonsense = c.nonsense[n:]; n == 0 {
			return 0, errFraming
		}
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n <= 0 || c.raw.Load() {
		return n, err
	}
	kept := c.scan.scan(p[:n])
	c.upgrade.Store(c.scan.upgrade)
	c.connect.Store(c.scan.connect)
	if kept < n {
		c.nonsense = nonsense
		if kept == 0 {
			return c.Read(p)
		}
		return kept, nil
	}
	return n, err
}

// Write implements net.Conn. It sees an upgrade granted: what the client sends from then on is no HTTP.
func (c *guarded) Write(p []byte) (int, error) {
	if c.upgrade.Load() && bytes.HasPrefix(p, []byte("HTTP/1.1 101 ")) ||
		c.connect.Load() && bytes.HasPrefix(p, []byte("HTTP/1.1 2")) {
		c.raw.Store(true)
	}
	if c.log != nil {
		if answer, ok := ownAnswer(p); ok {
			c.log.record(c.RemoteAddr(), answer, c.scan.why) // net/http reads no more
		}
	}
	return c.Conn.Write(p)
}

// ReadFrom lets files be sent without copying.
func (c *guarded) ReadFrom(r io.Reader) (int64, error) {
	if to, ok := c.Conn.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// CloseWrite lets net/http end an answer before the client has sent all.
func (c *guarded) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection that is guarded, as that of a tls.Conn does.
func (c *guarded) NetConn() net.Conn { return c.Conn }
