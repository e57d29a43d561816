package kafka_test

import (
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/kafka"
)

func init() {
	brokertest.RegisterConsumer(func(args []string) messaging.Broker {
		return kafka.Must(kafka.New(args[0], kafka.Config{Prefix: args[1], SessionTimeout: time.Second, Logger: quiet}))
	})
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	url, p := proxied(t)
	b := open(t, url, kafka.Config{Prefix: "test", Reconnect: messaging.Constant(10 * time.Millisecond)})
	brokertest.EndToEnd(t, b, p.Cut, url, "test")
}
