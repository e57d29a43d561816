package rabbitmq_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

// A server of the test's own is short of disk and memory, closes connections, is stopped and killed while messages are
// published and handled.
func TestServerRestartsAndBlocks(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "a server is started three times: run without -short")
	}
	t.Parallel()
	node := testenv.RabbitMQNode(t)
	held := held(t, open(t, node.URL(), rabbitmq.Config{}))
	tr := flow(t, node.URL(), rabbitmq.Config{})
	tr.alive("the start")
	tr.tooLarge(testenv.NodeMaxBody)

	node.Control(t, "set_disk_free_limit", "1000000GB")
	tr.until("an alarm of a full disk", func() bool { return errors.Is(tr.b.Health(t.Context()), messaging.ErrBlocked) })
	if err := tr.b.Publish(within(t, 50*time.Millisecond), "t", 1); !errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("Publish to a full disk: %v", err)
	}
	node.Control(t, "set_disk_free_limit", "50MB")
	tr.alive("a full disk")

	node.Control(t, "set_vm_memory_high_watermark", "0.00001")
	tr.until("an alarm of memory", func() bool { return errors.Is(tr.b.Health(t.Context()), messaging.ErrBlocked) })
	if err := tr.b.Publish(within(t, 50*time.Millisecond), "t", 1); !errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("Publish under an alarm: %v", err)
	}
	for _, d := range held { // acknowledged while publishers wait
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	tr.until("acknowledgements under an alarm", func() bool {
		return strings.Contains(node.Control(t, "-q", "list_queues", "--no-table-headers", "name", "messages"), "held\t0\n")
	})
	if err := tr.b.Health(t.Context()); !errors.Is(err, messaging.ErrBlocked) {
		t.Errorf("Health under an alarm: %v", err)
	}
	node.Control(t, "set_vm_memory_high_watermark", "0.4")
	tr.alive("the alarm")

	for range 5 {
		node.Control(t, "close_all_connections", "an operator's wish")
		tr.alive("an operator closed the connections")
	}
	node.Stop(t)
	node.Start(t)
	tr.alive("a restart")
	node.Kill(t)
	node.Start(t)
	tr.alive("a kill")
	tr.finish()
}

// held returns deliveries that were not settled.
func held(t *testing.T, b *rabbitmq.Broker) (held []messaging.Delivery) {
	t.Helper()
	s := subscribe(t, b, "held", 5, "held")
	for i := range 5 {
		if err := b.Publish(t.Context(), "held", i); err != nil {
			t.Fatal(err)
		}
		held = append(held, receive(t, s))
	}
	return held
}
