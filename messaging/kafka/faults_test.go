package kafka_test

import (
	"flag"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/kafka"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

// flow begins traffic by brokers that reconnect fast.
func flow(t *testing.T, url string) *brokertest.Traffic {
	t.Helper()
	cfg := kafka.Config{Prefix: unique(), Reconnect: messaging.Exponential(5*time.Millisecond, 100*time.Millisecond)}
	return brokertest.StartTraffic(t, true, func() messaging.Broker { return open(t, url, cfg) })
}

// cluster starts brokers of the test's own.
func cluster(t *testing.T, n int) (c *kfake.Cluster, url string) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, urlOf(c)
}

// In a cluster of three, leaders of partitions and coordinators move under load, and a broker is taken away: all
// confirmed messages arrive.
func TestClusterLosesNothingWhileLeadersMove(t *testing.T) {
	t.Parallel()
	c, url := cluster(t, 3)
	tr := flow(t, url)
	for range 5 {
		c.ShufflePartitionLeaders()
		time.Sleep(50 * time.Millisecond)
	}
	tr.Alive("a move of leaders")
	c.RehashCoordinators()
	tr.Alive("a move of coordinators")
	if err := c.RemoveNode(2); err != nil {
		t.Fatal(err)
	}
	tr.Alive("the loss of a broker")
	if _, _, err := c.AddNode(2, 0); err != nil {
		t.Fatal(err)
	}
	c.ShufflePartitionLeaders()
	tr.Alive("the return of a broker")
	tr.Finish()
}

func TestConformanceOnCluster(t *testing.T) {
	t.Parallel()
	_, url := cluster(t, 3)
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return open(t, url, kafka.Config{Replicas: 3})
	}, messagingtest.Features{})
}

// A client whose connections are cut, and then stay open and deliver nothing.
func TestClientIsCutOff(t *testing.T) {
	t.Parallel()
	url, p := proxied(t)
	tr := flow(t, url)
	for range 20 {
		p.Cut()
		time.Sleep(20 * time.Millisecond)
	}
	tr.Alive("cuts")
	p.Pause()
	time.Sleep(200 * time.Millisecond)
	p.Cut()
	p.Resume()
	tr.Alive("a black hole")
	tr.Silence(p.Freeze)
	tr.Finish()
}

var storm = flag.Duration("storm", 2*time.Second, "for how long TestRebalanceStorm lets consumers join and leave")

// Consumers join and leave under load: no message is lost, none that was settled is handled again, and those of a key
// come in order.
func TestRebalanceStorm(t *testing.T) {
	t.Parallel()
	_, url := cluster(t, 1)
	tr := flow(t, url)
	moves := 0
	for end := time.Now().Add(*storm); time.Now().Before(end); moves++ {
		tr.Join()
		time.Sleep(min(*storm/10, time.Second))
		if tr.Processes() > 3 {
			tr.Part()
		}
	}
	tr.Alive(fmt.Sprint(moves, " rebalances"))
	if twice := tr.Finish(); twice > 0 {
		t.Errorf("%d messages were handled again although they were settled", twice)
	}
}

// proxied starts a cluster that is reached through a proxy.
func proxied(t *testing.T) (url string, p *faultproxy.Proxy) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second),
		kfake.ListenFn(func(network, addr string) (net.Listener, error) {
			ln, err := net.Listen(network, addr)
			if err == nil {
				p = faultproxy.New(t, ln.Addr().String())
				ln = advertised{ln, p.Addr()}
			}
			return ln, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return urlOf(c), p
}

// advertised is a listener whose clients are given another address.
type advertised struct {
	net.Listener
	addr string
}

func (a advertised) Addr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", a.addr)
	if err != nil {
		panic(err)
	}
	return addr
}
