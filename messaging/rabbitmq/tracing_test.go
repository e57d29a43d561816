package rabbitmq_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

func TestTraceContextTravels(t *testing.T) {
	brokertest.Tracing(t, "rabbitmq", "nobody", messaging.ErrUnroutable, func(tp trace.TracerProvider) messaging.Broker {
		return open(t, testenv.RabbitMQ(t), rabbitmq.Config{TracerProvider: tp})
	})
}
