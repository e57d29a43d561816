package rabbitmq_test

import (
	"testing"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

func init() {
	brokertest.RegisterConsumer(func(args []string) messaging.Broker {
		return rabbitmq.Must(rabbitmq.New(args[0], rabbitmq.Config{}))
	})
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	via, direct, p := through(t)
	brokertest.EndToEnd(t, open(t, via, rabbitmq.Config{}), p.Cut, direct)
}
