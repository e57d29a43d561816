//go:build chaos

package main

import (
	"syscall"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
)

// disturb does one thing of the schedule, and undoes it.
func (c *chaos) disturb() {
	c.t.Helper()
	names := make([]string, 0, len(services))
	for _, b := range services {
		names = append(names, b.name)
	}
	name, r, i := names[c.rand.IntN(len(names))], c.rand.IntN(2), c.rand.IntN(len(c.nodes))
	short, long := c.between(0, 5*time.Second), c.between(3*time.Second, 15*time.Second)
	what := c.rand.IntN(24)
	switch {
	case what < 7:
		c.logf("kill %s %d for %.1fs", name, r, short.Seconds())
		_ = c.replicas[name][r].stop(syscall.SIGKILL)
		time.Sleep(short)
		c.start(name, r)
	case what < 11:
		c.logf("freeze %s %d for %.1fs", name, r, long.Seconds())
		p := c.replicas[name][r].cmd.Process
		_ = p.Signal(syscall.SIGSTOP)
		time.Sleep(long)
		_ = p.Signal(syscall.SIGCONT)
	case what < 12:
		c.logf("roll %s %d, to the next version: %t", name, r, !c.next[name][r])
		c.roll(name, r, !c.next[name][r]) // the two replicas may be of two versions from now on
	case what < 13:
		next := !c.next[name][0]
		c.logf("roll %s, to the next version: %t", name, next)
		c.roll(name, 0, next)
		c.roll(name, 1, next)
	case what < 15:
		c.logf("kill broker %d for %.1fs", i, long.Seconds())
		c.nodes[i].Kill(c.t)
		time.Sleep(long)
		c.nodes[i].Start(c.t)
	case what < 17:
		c.logf("freeze broker %d for %.1fs", i, long.Seconds())
		c.nodes[i].Freeze(c.t)
		time.Sleep(long)
		c.nodes[i].Thaw(c.t)
	case what < 19:
		c.logf("no byte passes between services and broker %d for %.1fs", i, long.Seconds())
		c.proxies[i].Pause()
		time.Sleep(long)
		c.proxies[i].Cut()
		c.proxies[i].Resume()
	case what < 21:
		c.logf("broker %d is cut off from the others for %.1fs", i, long.Seconds())
		testenv.CutOff(c.t, c.nodes, i)
		time.Sleep(long)
		testenv.Heal(c.t, c.nodes, i)
		c.nodes[i].Await(c.t)
	case what < 22:
		c.logf("broker %d has no disk left for %.1fs", i, long.Seconds())
		c.nodes[i].Control(c.t, "set_disk_free_limit", "1000GB") // publishers at all nodes are blocked
		time.Sleep(long)
		c.nodes[i].Control(c.t, "set_disk_free_limit", "50MB")
	case c.failed:
		c.logf("PostgreSQL has no other standby")
	case what < 23:
		c.logf("kill PostgreSQL and promote the standby")
		c.failed = true
		c.postgres.Failover(c.t)
	default:
		c.logf("freeze PostgreSQL for good and promote the standby")
		c.failed = true
		c.silent = time.Now()
		c.postgres.Freeze(c.t)
		c.postgres.Promote(c.t)
	}
	c.logf("undone")
}
