package kafka_test

import (
	"testing"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/kafka"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return open(t, url, kafka.Config{})
	}, messagingtest.Features{})
}
