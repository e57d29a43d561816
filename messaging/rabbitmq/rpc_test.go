package rabbitmq

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A call that is never answered ends after rpcTimeout and leaves a sound connection alone; many of them give it up.
func TestSilentCallsSpareTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		closed := make(chan struct{})
		go func() {
			_, _ = far.Read(make([]byte, 1))
			close(closed)
		}()
		c := &conn{raw: &corkConn{Conn: near}}
		answer, dropped := make(chan struct{}), make(chan int, 3*maxSilent)
		silent := func() {
			start := time.Now()
			_, err := rpc(t.Context(), c, func() (int, error) { <-answer; return 1, nil }, func(v int) { dropped <- v })
			if !errors.Is(err, errSilent) || time.Since(start) != rpcTimeout {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
		}
		for range maxSilent + 1 { // beside deliveries
			c.heard.Store(time.Now().UnixNano() + 1)
			silent()
		}
		select {
		case <-closed:
			t.Fatal("the connection was closed")
		default:
		}
		silent()
		<-closed
		close(answer)
		synctest.Wait()
		if len(dropped) != maxSilent+2 || c.silent.Load() != 0 {
			t.Errorf("%d late answers were dropped, %d calls are silent", len(dropped), c.silent.Load())
		}
	})
}
