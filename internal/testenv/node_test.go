package testenv_test

import (
	"net"
	"net/url"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
)

// A node answers when it was started, and only then, however it ended.
func TestRabbitMQNode(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "a node takes some seconds: run without -short")
	}
	t.Parallel()
	n := testenv.RabbitMQNode(t)
	u, err := url.Parse(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	up := func() bool {
		c, err := net.Dial("tcp", u.Host)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	n.Control(t, "status")
	for what, end := range map[string]func(testing.TB){"Stop": n.Stop, "Kill": n.Kill} {
		end(t)
		if up() {
			t.Fatalf("after %s it answers", what)
		}
		n.Start(t)
		if !up() {
			t.Fatalf("after %s it does not start", what)
		}
	}
}
