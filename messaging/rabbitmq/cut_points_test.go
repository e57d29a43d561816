package rabbitmq_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// window is a method of AMQP at which connections are cut.
type window struct {
	name       string
	fromServer bool
	id         uint32 // class and method
}

// windows are all methods that pass while connections are made, topology is declared, and messages flow.
var windows = []window{
	{"start", true, 10<<16 | 10}, {"start-ok", false, 10<<16 | 11},
	{"tune", true, 10<<16 | 30}, {"tune-ok", false, 10<<16 | 31},
	{"open", false, 10<<16 | 40}, {"open-ok", true, 10<<16 | 41},
	{"channel.open", false, 20<<16 | 10}, {"channel.open-ok", true, 20<<16 | 11},
	{"exchange.declare", false, 40<<16 | 10}, {"exchange.declare-ok", true, 40<<16 | 11},
	{"confirm.select", false, 85<<16 | 10}, {"confirm.select-ok", true, 85<<16 | 11},
	{"queue.declare", false, 50<<16 | 10}, {"queue.declare-ok", true, 50<<16 | 11},
	{"queue.bind", false, 50<<16 | 20}, {"queue.bind-ok", true, 50<<16 | 21},
	{"qos", false, 60<<16 | 10}, {"qos-ok", true, 60<<16 | 11},
	{"consume", false, 60<<16 | 20}, {"consume-ok", true, 60<<16 | 21},
	{"publish", false, 60<<16 | 40}, {"return", true, 60<<16 | 50}, {"confirm", true, 60<<16 | 80},
	{"deliver", true, 60<<16 | 60}, {"ack", false, 60<<16 | 80},
}

// cutter ends connections at a window. By itself it cuts the one that is there: before the frame, in its midst and
// behind it in turn.
type cutter struct {
	operator func() // instead, called before the frame passes

	mu   sync.Mutex
	at   window
	left int
}

func (c *cutter) arm(w window, times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.left = w, times
}

func (c *cutter) armed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

// take reports whether a connection is to be cut at a method, and where.
func (c *cutter) take(fromServer bool, id uint32) (cut bool, where int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 || c.at.fromServer != fromServer || c.at.id != id {
		return false, 0
	}
	c.left--
	return true, c.left % 3
}

const frameHead = 11 // type, channel, size, class, method

// filter follows the frames of one direction of a connection.
func (c *cutter) filter(fromServer bool) faultproxy.Filter {
	var head []byte
	skip, after := 0, false // bytes to the end of the frame; cut there
	if !fromServer {
		skip = len("AMQP\x00\x00\x09\x01")
	}
	return func(piece []byte) (int, bool) {
		for i := 0; i < len(piece); {
			if skip > 0 {
				n := min(skip, len(piece)-i)
				i, skip = i+n, skip-n
				if skip == 0 && after {
					return i, true
				}
				continue
			}
			head = append(head, piece[i])
			i++
			if len(head) == 7 && head[0] != 1 { // content or a heartbeat
				skip, head = int(binary.BigEndian.Uint32(head[3:]))+1, head[:0]
				continue
			}
			if len(head) < frameHead {
				continue
			}
			skip = int(binary.BigEndian.Uint32(head[3:])) + 8 - frameHead
			id := binary.BigEndian.Uint32(head[7:])
			head = head[:0]
			cut, where := c.take(fromServer, id)
			switch {
			case !cut:
			case c.operator != nil:
				c.operator()
			case where == 0:
				return max(i-frameHead, 0), true
			case where == 1:
				return i, true
			default:
				after = true
			}
		}
		return len(piece), false
	}
}

// noLimit is for tests that break connections so often that RabbitMQ 4 would take a message for one that kills its
// consumers.
var noLimit = rabbitmq.Config{DeliveryLimit: -1}

// In every window of recovery connections are cut twenty times over, while messages flow.
func TestCutInEveryWindow(t *testing.T) {
	t.Parallel()
	via, _, p := through(t)
	c := &cutter{}
	p.Filter(c.filter)
	tr := flow(t, via, noLimit)
	c.each(tr, p)
	p.Refuse(true) // and where no server answers
	p.Cut()
	time.Sleep(200 * time.Millisecond)
	p.Refuse(false)
	tr.alive("refused connections")
	tr.finish()
}

// In every window of recovery an operator closes all connections twenty times over, by the management API, while
// messages flow. The server reports such an end; the connection stays open.
func TestClosedInEveryWindow(t *testing.T) {
	t.Parallel()
	via, direct, p := through(t)
	c := &cutter{operator: func() {
		if err := testenv.CloseConnections(t, direct); err != nil {
			t.Error(err)
		}
	}}
	p.Filter(c.filter)
	tr := flow(t, via, noLimit)
	c.each(tr, p)
	tr.finish()
	if n := p.Connections(); n < 5*len(windows) {
		t.Errorf("the operator closed too little: there were %d connections", n)
	}
}

// each ends connections in one window after the other.
func (c *cutter) each(tr *traffic, p *faultproxy.Proxy) {
	tr.Helper()
	tr.alive("the start")
	for _, w := range windows {
		times := 20
		if testing.Short() {
			times = 3
		}
		c.arm(w, times)
		begin := time.Now()
		seen, next, pause := times, begin, 30*time.Millisecond
		tr.until(w.name+" to be met", func() bool {
			left := c.armed()
			if left != seen {
				seen, pause = left, 30*time.Millisecond
				next = time.Now().Add(pause)
			}
			// nothing is set up now, or slowly, or the server overlooked a connection
			if w.recovery() && time.Now().After(next) {
				p.Cut()
				pause *= 2
				next = time.Now().Add(pause)
			}
			return left == 0
		})
		tr.alive(w.name)
		if testing.Verbose() {
			tr.Logf("%-20s %v, %d connections", w.name, time.Since(begin).Round(time.Millisecond), p.Connections())
		}
	}
}

// recovery reports whether a window comes only while something is set up.
func (w window) recovery() bool { return w.id>>16 != 60 || w.id&0xffff < 40 }
