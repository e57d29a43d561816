package main

import (
	"net"
	"sync"
	"time"
)

// lingering hides from kfake that a client's connection has ended, until every session has. Without it a member that is
// killed while it joins stays in its group for ever and keeps its partitions from all others: kfake begins its session
// timeout only when the answer is delivered, where Apache Kafka begins it in any case.
type lingering struct{ net.Listener }

// linger is longer than the services' sessions.
const linger = 40 * time.Second

// Accept implements net.Listener.
func (l lingering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingeringConn{Conn: c, closed: make(chan struct{})}, nil
}

type lingeringConn struct {
	net.Conn
	close  sync.Once
	closed chan struct{}
}

// Read implements net.Conn.
func (c *lingeringConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && n == 0 {
		select {
		case <-c.closed:
		case <-time.After(linger):
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *lingeringConn) Write(b []byte) (int, error) {
	if n, err := c.Conn.Write(b); err != nil {
		select {
		case <-c.closed:
			return n, err
		default: // nobody reads it
		}
	}
	return len(b), nil
}

// Close implements net.Conn.
func (c *lingeringConn) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
