package faultproxy_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every byte with itself.
func echo(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return ln.Addr().String()
}

func dial(t *testing.T, p *faultproxy.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ping sends a byte and waits for it to come back.
func ping(c net.Conn, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func TestProxyInjectsEachFault(t *testing.T) {
	p := faultproxy.New(t, echo(t))
	c := dial(t, p)
	if err := ping(c, 5*time.Second); err != nil {
		t.Fatalf("forward: %v", err)
	}

	p.Pause()
	if err := ping(c, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("black hole: %v", err)
	}
	p.Resume()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatalf("what was held did not flow on: %v", err)
	}

	p.Delay(100 * time.Millisecond)
	begin := time.Now()
	if err := ping(c, 5*time.Second); err != nil || time.Since(begin) < 200*time.Millisecond {
		t.Fatalf("delay: %v after %v", err, time.Since(begin))
	}
	p.Delay(0)

	p.Cut()
	if err := ping(c, 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("cut: %v", err)
	}
	if err := ping(dial(t, p), 5*time.Second); err != nil {
		t.Fatalf("after a cut: %v", err)
	}

	p.Refuse(true)
	if err := ping(dial(t, p), 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("refuse: %v", err)
	}
	p.Refuse(false)
	if err := ping(dial(t, p), 5*time.Second); err != nil || p.Connections() != 3 {
		t.Fatalf("after refusing: %v, %d connections", err, p.Connections())
	}
}

// A filter cuts where it says, in the direction that it watches.
func TestFilterCutsWhereItSays(t *testing.T) {
	for _, fromTarget := range []bool{false, true} {
		p := faultproxy.New(t, echo(t))
		p.Filter(func(from bool) faultproxy.Filter {
			if from != fromTarget {
				return nil
			}
			seen := 0
			return func(piece []byte) (int, bool) {
				pass := min(len(piece), 3-seen)
				seen += pass
				return pass, seen == 3
			}
		})
		c := dial(t, p)
		if _, err := c.Write([]byte("abcdef")); err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 3 || fromTarget && string(got) != "abc" {
			t.Errorf("from the target %v: %q, %v", fromTarget, got, err)
		}
	}
}
