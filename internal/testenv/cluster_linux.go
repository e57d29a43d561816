package testenv

import (
	"fmt"
	"sync"
	"testing"
)

// RabbitMQCluster starts a cluster of nodes on loopback, which takes about half a minute. A partition makes the
// minority pause. A node that is frozen counts as down after 8 seconds, not 60 (net_ticktime).
func RabbitMQCluster(t testing.TB, size int) []*Node {
	t.Helper()
	epmdPort := newEPMD(t)
	nodes := make([]*Node, size)
	conf := "net_ticktime = 8\ncluster_partition_handling = pause_minority\ncluster_formation.peer_discovery_backend " +
		"= classic_config\n"
	for i := range nodes {
		nodes[i] = newNode(t, epmdPort)
		conf += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, nodes[i].name)
	}
	for _, n := range nodes {
		n.configure(t, conf)
		n.launch(t)
	}
	for _, n := range nodes {
		n.Await(t)
	}
	return nodes
}

// CutOff has one node of a cluster lose its connections to the others at once, and refuse new ones: the two sides have
// different cookies for each other. The node pauses, and so do its clients.
func CutOff(t testing.TB, nodes []*Node, which int) {
	t.Helper()
	nodes[which].Control(t, "eval", `Others = nodes(), [rpc:call(N, erlang, set_cookie, [node(), theirs]) || N <- Others],
		[erlang:set_cookie(N, its) || N <- Others], [erlang:disconnect_node(N) || N <- Others].`)
}

// Heal gives them the cluster's cookie again, after which they connect by themselves.
func Heal(t testing.TB, nodes []*Node, which int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, on := range nodes {
		for j, from := range nodes {
			if (i == which) != (j == which) {
				wg.Go(func() { on.Control(t, "eval", fmt.Sprintf("erlang:set_cookie('%s', sillar).", from.Name())) })
			}
		}
	}
	wg.Wait()
}
