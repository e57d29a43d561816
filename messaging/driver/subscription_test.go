package driver_test

import (
	"errors"
	"testing"

	"github.com/sillar-go/sillar/messaging"
	"github.com/sillar-go/sillar/messaging/driver"
)

// What a broker does not do is refused, never left out in silence.
func TestSubscriptionsThatABrokerDoesNotSupport(t *testing.T) {
	for name, s := range map[string]messaging.Subscription{
		"a start position":    {Group: "g", Start: messaging.StartEarliest()},
		"one active consumer": {Group: "g", SingleActive: true},
		"a queue of its own":  {Group: "g", Ephemeral: true},
	} {
		if err := driver.Check(s, messaging.Features{Unroutable: true}); !errors.Is(err, messaging.ErrUnsupported) {
			t.Errorf("%s: %v, want ErrUnsupported", name, err)
		}
		if err := driver.Check(s, messaging.Features{Replay: true, SingleActive: true, Ephemeral: true}); err != nil {
			t.Errorf("%s, supported: %v", name, err)
		}
	}
}
