package jetstream_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sillar-go/sillar/internal/killtest"
)

func init() { killtest.Register("nats", runNode) }

// runNode is the program of a server that can be killed: folder, name, client port, and the cluster's ports, its own
// first.
func runNode(args []string) error {
	o := &server.Options{StoreDir: args[0], ServerName: args[1]}
	var err error
	if o.Port, err = strconv.Atoi(args[2]); err != nil {
		return err
	}
	if len(args) > 3 {
		o.Cluster.Name, o.Cluster.Host = "test", "127.0.0.1"
		if o.Cluster.Port, err = strconv.Atoi(args[3]); err != nil {
			return err
		}
		for _, port := range args[4:] {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: "127.0.0.1:" + port})
		}
	}
	s, err := start(o)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	s.WaitForShutdown()
	return nil
}

// node is a server in a process of its own.
type node struct {
	*killtest.Process
	name, url string
}

func (n *node) restart(t *testing.T) {
	t.Helper()
	n.Process = n.Restart(t)
	n.Line(t, "ready")
}

// ports returns free ports, which a server that is started again needs to have again: none that the system gives to
// connections.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for len(out) < n {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }()
		out = append(out, port)
	}
	return out
}

// single starts a server of the test's own.
func single(t *testing.T) *node {
	t.Helper()
	port := ports(t, 1)[0]
	n := &node{killtest.Start(t, "nats", t.TempDir(), "n0", port), "n0", "nats://127.0.0.1:" + port}
	n.Line(t, "ready")
	return n
}

// cluster starts three servers, and returns them with the URL that names them all.
func cluster(t *testing.T) (nodes []*node, all string) {
	t.Helper()
	all6 := ports(t, 6)
	clients, routes := all6[:3], all6[3:]
	var urls []string
	for i := range 3 {
		args := []string{t.TempDir(), fmt.Sprint("n", i), clients[i], routes[i]}
		for j := range 3 {
			args = append(args, routes[j])
		}
		n := &node{killtest.Start(t, "nats", args...), args[1], "nats://127.0.0.1:" + clients[i]}
		nodes, urls = append(nodes, n), append(urls, n.url)
	}
	for _, n := range nodes {
		n.Line(t, "ready")
	}
	return nodes, strings.Join(urls, ",")
}

// dial connects as a program without this library would.
func dial(t *testing.T, url string) *nats.Conn {
	t.Helper()
	var nc *nats.Conn
	var err error
	for end := time.Now().Add(patience); nc == nil && time.Now().Before(end); {
		if nc, err = nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})); err != nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
