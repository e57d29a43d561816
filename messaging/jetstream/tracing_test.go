package jetstream_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/internal/brokertest"
	"github.com/sillar-go/sillar/messaging/jetstream"
)

func TestTraceContextTravels(t *testing.T) {
	t.Parallel()
	brokertest.Tracing(t, "nats", "not..allowed", messaging.ErrInvalid, func(tp trace.TracerProvider) messaging.Broker {
		return open(t, shared.ClientURL(), jetstream.Config{TracerProvider: tp})
	})
}
