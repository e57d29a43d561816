package jetstream_test

import (
	"testing"
	"time"

	"github.com/sillar-go/sillar/internal/faultproxy"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

func init() {
	brokertest.RegisterConsumer(func(args []string) messaging.Broker {
		return jetstream.Must(jetstream.New(args[0], jetstream.Config{Stream: args[1], AckWait: time.Second,
			DeliveryLimit: -1, Logger: quiet}))
	})
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	p, stream := faultproxy.New(t, shared.Addr().String()), unique()
	b := open(t, "nats://"+p.Addr(), jetstream.Config{Stream: stream, AckWait: time.Second,
		Reconnect: messaging.Constant(10 * time.Millisecond)})
	brokertest.EndToEnd(t, b, p.Cut, shared.ClientURL(), stream)
}
