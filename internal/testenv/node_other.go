//go:build !linux

package testenv

import "testing"

// Node is a RabbitMQ server of a test's own.
type Node struct{}

// RabbitMQNode skips the test: nodes are started on Linux only.
func RabbitMQNode(t testing.TB) *Node {
	t.Helper()
	t.Skip("a RabbitMQ of the test's own is started on Linux only")
	return nil
}

// RabbitMQCluster skips the test.
func RabbitMQCluster(t testing.TB, _ int) []*Node {
	t.Helper()
	RabbitMQNode(t)
	return nil
}

// CutOff has a node lose its connections to the others.
func CutOff(testing.TB, []*Node, int) {}

// Heal lets them connect again.
func Heal(testing.TB, []*Node, int) {}

// URL returns where the node is reached.
func (*Node) URL() string { return "" }

// Start starts the node again.
func (*Node) Start(testing.TB) {}

// Await waits until the node takes connections.
func (*Node) Await(testing.TB) {}

// Stop ends the node in good order.
func (*Node) Stop(testing.TB) {}

// Kill ends the node with SIGKILL.
func (*Node) Kill(testing.TB) {}

// Control runs rabbitmqctl on the node.
func (*Node) Control(testing.TB, ...string) string { return "" }

// Name returns the name by which the nodes of a cluster know it.
func (*Node) Name() string { return "" }

// Host returns the node's host and port.
func (*Node) Host() string { return "" }

// Freeze stops the node's process.
func (*Node) Freeze(testing.TB) {}

// Thaw lets the node's process go on.
func (*Node) Thaw(testing.TB) {}

// Log returns what the node has logged.
func (*Node) Log(testing.TB) []byte { return nil }
