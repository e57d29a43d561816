package rabbitmq

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A node that failed is not tried for a while, which doubles while it goes on failing, as long as there is another one.
const (
	avoidFor    = 10 * time.Second
	maxAvoidFor = 5 * time.Minute
)

// nodes are the servers that a URL names.
type nodes struct {
	mu  sync.Mutex
	all []*node
}

type node struct {
	url   string
	host  string
	fails int       // in a row
	until time.Time // avoided
}

// parse splits a URL that may name several hosts: amqp://user:password@host1:5672,host2:5672/vhost.
func parse(url string) (*nodes, error) {
	scheme, rest, _ := strings.Cut(url, "://")
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	user := ""
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		user, authority = authority[:i+1], authority[i+1:]
	}
	n := &nodes{}
	for host := range strings.SplitSeq(authority, ",") {
		one := scheme + "://" + user + host + path
		uri, err := amqp.ParseURI(one)
		if err != nil || host == "" && strings.Contains(authority, ",") {
			return nil, ErrURL
		}
		n.all = append(n.all, &node{url: one, host: uri.Host})
	}
	return n, nil
}

// pick returns one of the nodes that are not avoided, at random, or else the one that is avoided for the shortest time.
func (n *nodes) pick(now time.Time) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	best := n.all[0]
	for _, i := range rand.Perm(len(n.all)) {
		x := n.all[i]
		if !x.until.After(now) {
			return x
		}
		if x.until.Before(best.until) {
			best = x
		}
	}
	return best
}

// failed avoids a node for a while. It reports whether there is another one that is not avoided.
func (n *nodes) failed(x *node, now time.Time) (another bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x.until = now.Add(min(avoidFor<<min(x.fails, 10), maxAvoidFor))
	x.fails++
	for _, other := range n.all {
		another = another || !other.until.After(now)
	}
	return another
}

// works ends what a node is avoided for.
func (n *nodes) works(x *node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x.fails, x.until = 0, time.Time{}
}

// several reports whether there is more than one node.
func (n *nodes) several() bool { return len(n.all) > 1 }
