package kafka_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/kafka"
)

func TestTraceContextTravels(t *testing.T) {
	t.Parallel()
	brokertest.Tracing(t, "kafka", ".not-allowed", messaging.ErrInvalid, func(tp trace.TracerProvider) messaging.Broker {
		return open(t, url, kafka.Config{TracerProvider: tp})
	})
}
