package rabbitmq

import (
	"net"
	"sync"
)

// corkSize is how many bytes are gathered before they are written all the same.
const corkSize = 64 << 10

// corkConn gathers what is written while it is corked: amqp091 writes each message by itself, and a system call costs
// more than a message. An error of a write that was put off ends the connection, which its reader notices.
type corkConn struct {
	net.Conn
	mu     sync.Mutex
	corked bool
	buf    []byte
}

// Write implements net.Conn.
func (c *corkConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(p)
	}
	c.buf = append(c.buf, p...)
	if len(c.buf) < corkSize {
		return len(p), nil
	}
	return len(p), c.flush()
}

func (c *corkConn) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf)
	if c.buf = c.buf[:0]; cap(c.buf) > 4*corkSize {
		c.buf = nil // a large message has passed
	}
	if err != nil {
		_ = c.Conn.Close()
	}
	return err
}

func (c *corkConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

func (c *corkConn) uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	_ = c.flush() // an error has ended the connection
}
