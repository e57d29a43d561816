package jetstream_test

import (
	"testing"
	"time"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/jetstream"
	"github.com/sillar-go/sillar/messaging/messagingtest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return open(t, shared.ClientURL(), jetstream.Config{})
	}, messagingtest.Features{})
}

func TestConformanceWithKeep(t *testing.T) {
	t.Parallel()
	messagingtest.Run(t, func(t *testing.T) messaging.Broker {
		return open(t, shared.ClientURL(), jetstream.Config{Keep: time.Hour})
	}, messagingtest.Features{})
}
