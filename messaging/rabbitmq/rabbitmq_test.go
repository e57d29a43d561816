package rabbitmq_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/sillar-go/sillar/internal/killtest"
	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/messagingtest"
	"github.com/sillar-go/sillar/messaging/rabbitmq"
)

func TestMain(m *testing.M) { killtest.Main(); goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func TestConformance(t *testing.T) {
	t.Parallel()
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return rabbitmq.Must(rabbitmq.New(testenv.RabbitMQ(t), rabbitmq.Config{Source: "test", Logger: quiet}))
	}, messagingtest.Features{})
}

func TestConformanceClassic(t *testing.T) {
	t.Parallel()
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return rabbitmq.Must(rabbitmq.New(testenv.RabbitMQ(t), rabbitmq.Config{Source: "test", Logger: quiet, Classic: true}))
	}, messagingtest.Features{})
}
